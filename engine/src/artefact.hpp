// The file: named sections, mapped read-only and used as they lie. docs/formats/native.md describes every byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "error.hpp"
#include "kernels/kernels.hpp"

namespace tightrope {

inline constexpr std::uint32_t kFormat = 1;
inline constexpr std::size_t kAlignment = 64;

// A file's bytes, mapped until the object goes.
class Mapping {
 public:
  explicit Mapping(int descriptor);
  explicit Mapping(std::span<const std::byte> bytes) : bytes_(bytes) {}  // somebody else's bytes, for tests
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
  bool owned_ = false;
};

struct SectionEntry {
  char name[32];
  std::uint64_t offset;
  std::uint64_t size;
  std::uint32_t element;
  std::uint32_t reserved[3];
};
static_assert(sizeof(SectionEntry) == 64);

struct Section {
  Element element;
  std::span<const std::byte> bytes;
};

// Sections by name. The constructor checks the header and every entry; what a section holds is checked by who asks.
class Artefact {
 public:
  explicit Artefact(std::span<const std::byte> file);

  bool has(std::string_view name) const { return find(name) != nullptr; }
  Section section(std::string_view name) const;  // Error(format) if there is none

  // Exactly `count` values of a type. Error(format) if the section is missing, of another type or another size.
  template <class T>
  const T* values(std::string_view name, std::size_t count) const {
    return reinterpret_cast<const T*>(exactly(name, element_of(static_cast<T*>(nullptr)), count, sizeof(T)));
  }
  // The same, or null if there is no such section.
  template <class T>
  const T* optional(std::string_view name, std::size_t count) const {
    return has(name) ? values<T>(name, count) : nullptr;
  }
  // A section of one plain structure.
  template <class T>
  const T& record(std::string_view name) const {
    return *reinterpret_cast<const T*>(exactly(name, Element::bytes, 1, sizeof(T)));
  }

 private:
  static Element element_of(const float*) { return Element::float32; }
  static Element element_of(const std::int32_t*) { return Element::int32; }
  static Element element_of(const std::int8_t*) { return Element::int8; }
  static Element element_of(const std::uint16_t*) { return Element::float16; }

  const SectionEntry* find(std::string_view name) const;
  const std::byte* exactly(std::string_view name, Element element, std::size_t count, std::size_t size) const;

  std::span<const std::byte> file_;
  std::unordered_map<std::string_view, const SectionEntry*> entries_;
};

[[noreturn]] void refuse_format(const std::string& what);

// a * b, or Error(format) where it does not fit.
std::size_t product(std::size_t a, std::size_t b);

}  // namespace tightrope
