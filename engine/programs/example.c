/* Two texts, and how alike they are: the shortest whole program in C.
 *
 *   cc example.c -I engine/include -L FOLDER -ltightrope -o example && ./example model.tightrope
 */
#include <stdio.h>
#include <stdlib.h>

#include "tightrope.h"

static int failed(void) {
  fprintf(stderr, "%s\n", tightrope_last_error());
  return 2;
}

/* Vectors of a model that does not give them unit length would have to be divided by their lengths. */
static float dot(const float* a, const float* b, size_t width) {
  float sum = 0;
  for (size_t i = 0; i < width; ++i) sum += a[i] * b[i];
  return sum;
}

int main(int count, char** arguments) {
  const char* texts[2] = {"A cat sleeps on the sofa.", "A kitten naps on the couch."};
  tightrope_model model;
  tightrope_description about = {.size = sizeof about};
  if (count != 2) {
    fprintf(stderr, "usage: %s MODEL.tightrope\n", arguments[0]);
    return 2;
  }
  if (tightrope_open(arguments[1], NULL, &model) != TIGHTROPE_OK) return failed();
  if (tightrope_describe(model, &about) != TIGHTROPE_OK) return failed();
  float* vectors = malloc(2 * about.width * sizeof *vectors);
  if (vectors == NULL) return 2;
  if (tightrope_embed(model, texts, NULL, 2, vectors, NULL) != TIGHTROPE_OK) return failed();
  printf("%.4f\n", dot(vectors, vectors + about.width, about.width));
  free(vectors);
  return tightrope_close(model) == TIGHTROPE_OK ? 0 : failed();
}
