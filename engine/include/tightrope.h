/*
 * tightrope: sentence encoders on a processor. The engine's C interface.
 *
 * Everything is thread-safe unless it says otherwise. A call that fails returns a status other than TIGHTROPE_OK and
 * leaves two lines for people in tightrope_last_error(). The interface is stable within a major version: functions are
 * added, never changed, and structures begin with their size.
 */
#ifndef TIGHTROPE_H
#define TIGHTROPE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define TIGHTROPE_API __declspec(dllexport)
#else
#define TIGHTROPE_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* An open model. Zero is none. A handle that was closed is recognised and refused. */
typedef uint64_t tightrope_model;

typedef enum {
  TIGHTROPE_OK = 0,
  TIGHTROPE_ARGUMENT = 1,    /* an argument is wrong: no such id, invalid UTF-8, … */
  TIGHTROPE_FORMAT = 2,      /* the file is damaged, or made for a newer engine */
  TIGHTROPE_FILE = 3,        /* the file cannot be read */
  TIGHTROPE_UNSUPPORTED = 4, /* the processor or this build lacks what is asked for */
  TIGHTROPE_CLOSED = 5,      /* the model is closed */
  TIGHTROPE_MEMORY = 6       /* there is not enough memory */
} tightrope_status;

typedef struct {
  size_t size;             /* sizeof(tightrope_options) */
  uint32_t threads;        /* that work on one call; 0 means 1 */
  uint32_t pinned;         /* 1: keep each thread on a core of its own, of those the process may use */
  uint32_t half_attention; /* 1: attention in bfloat16 where the processor multiplies it; answers then depend on it */
} tightrope_options;

typedef struct {
  size_t size;          /* sizeof(tightrope_description) */
  uint32_t width;       /* numbers in an answer */
  uint32_t max_length;  /* tokens that the model reads; more are refused */
  uint32_t vocabulary;  /* ids are below */
  uint32_t types;       /* token types of pairs; 0 if the model takes none */
  uint32_t scores;      /* 1 for a model that scores pairs, 0 for one that embeds texts */
  uint32_t tokenizes;   /* 1 if the file holds a tokenizer */
} tightrope_description;

TIGHTROPE_API const char* tightrope_version(void);

/* The instruction set in use: the best of this processor, or what TIGHTROPE_ISA names. NULL with an error if that is
 * unknown or not here. */
TIGHTROPE_API const char* tightrope_isa(void);

/* What this processor can run, names divided by spaces, the best first. */
TIGHTROPE_API const char* tightrope_isas(void);

/* Two lines about the calling thread's last failure: what is wrong, and what to do. Never NULL. */
TIGHTROPE_API const char* tightrope_last_error(void);

/* Opens a file. It is mapped, not read: keep it as it is while it is open. `options` may be NULL. */
TIGHTROPE_API tightrope_status tightrope_open(const char* path, const tightrope_options* options,
                                              tightrope_model* model);

/* The same for a descriptor that is open for reading; it stays the caller's. */
TIGHTROPE_API tightrope_status tightrope_open_descriptor(int descriptor, const tightrope_options* options,
                                                         tightrope_model* model);

/* Closes a model. Calls that are under way finish first; later ones are refused. */
TIGHTROPE_API tightrope_status tightrope_close(tightrope_model model);

TIGHTROPE_API tightrope_status tightrope_describe(tightrope_model model, tightrope_description* description);

/*
 * Texts, as UTF-8, to rows of `width` floats in the order given. `sizes` are the texts' bytes; NULL if they end with a
 * zero byte. What is longer than the model reads is cut; `cut`, if not NULL, counts how many were.
 */
TIGHTROPE_API tightrope_status tightrope_embed(tightrope_model model, const char* const* texts, const size_t* sizes,
                                               size_t count, float* out, size_t* cut);

/* Pairs of texts, one after the other (2 * count texts), to rows of `width` floats. */
TIGHTROPE_API tightrope_status tightrope_score(tightrope_model model, const char* const* texts, const size_t* sizes,
                                               size_t count, float* out, size_t* cut);

/*
 * Token ids to rows of `width` floats. Row i has the ids [offsets[i], offsets[i + 1]); at least one each. `types` may
 * be NULL for zeros.
 */
TIGHTROPE_API tightrope_status tightrope_run(tightrope_model model, const int32_t* ids, const int32_t* types,
                                             const int64_t* offsets, size_t count, float* out);

/*
 * Texts to token ids, special ones included, at most `max_length` each: row i is ids[offsets[i] .. offsets[i + 1]).
 * `pairs` 1 takes 2 * count texts. `types` may be NULL. If `capacity` ids do not suffice, nothing is written but
 * offsets[count], which then says how many are needed, and the status is TIGHTROPE_MEMORY.
 */
TIGHTROPE_API tightrope_status tightrope_tokenize(tightrope_model model, const char* const* texts, const size_t* sizes,
                                                  size_t count, int pairs, size_t max_length, int32_t* ids,
                                                  int32_t* types, size_t capacity, int64_t* offsets, size_t* cut);

/* Rows of an index: 8-bit codes, padded with zeros to a stride that is a multiple of 64 and at most 65536 bytes. */
typedef struct {
  size_t size;            /* sizeof(tightrope_rows) */
  const int8_t* codes;    /* [count, stride] */
  size_t stride;
  size_t count;
  const float* scales;    /* [count]; a row's score is its product with the query, as a float, times its scale */
  const uint8_t* allowed; /* [count]; rows with zero are left out. NULL allows all */
} tightrope_rows;

/*
 * The rows most like a query of `stride` codes, the best first and of equal ones the one before: at most `most` places
 * and scores, and how many there are. Products are exact integers, so every instruction set finds the same.
 */
TIGHTROPE_API tightrope_status tightrope_scan(const tightrope_rows* rows, const int8_t* query, size_t most,
                                              int64_t* places, float* scores, size_t* found);

#ifdef __cplusplus
}
#endif
#endif
