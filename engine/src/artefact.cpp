#include "artefact.hpp"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tightrope {
namespace {

constexpr char kMagic[8] = {'T', 'I', 'G', 'H', 'T', 'R', 'O', 'P'};
constexpr std::uint32_t kMostSections = 65536;

struct Header {
  char magic[8];
  std::uint32_t format;
  std::uint32_t sections;
  std::uint64_t size;
  std::uint8_t reserved[40];
};
static_assert(sizeof(Header) == 64);

void check_header(const Header& header, std::size_t size) {
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0)
    throw Error(Fault::format, "The file does not begin like a model of tightrope's engine.", "Give a .tightrope file.");
  if (header.format != kFormat)
    throw Error(Fault::format,
                "The file has format " + std::to_string(header.format) + "; this engine reads " +
                    std::to_string(kFormat) + ".",
                header.format > kFormat ? "Update tightrope on this device." : "Make the bundle anew.");
  if (header.size != size)
    refuse_format("it has " + std::to_string(size) + " bytes, not " + std::to_string(header.size));
  if (header.sections == 0 || header.sections > kMostSections)
    refuse_format("it claims " + std::to_string(header.sections) + " sections");
  if (size < sizeof(Header) + header.sections * sizeof(SectionEntry)) refuse_format("its table is cut off");
}

// Names are told in errors, which have two lines whatever the file holds.
bool is_readable(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) { return c > ' ' && c <= '~'; });
}

[[noreturn]] void refuse_section(std::string_view name, const std::string& what) {
  refuse_format(std::string("section ").append(name).append(" ").append(what));
}

}  // namespace

void refuse_format(const std::string& what) {
  throw Error(Fault::format, "The model's file is damaged: " + what + ".", "Fetch the bundle again.");
}

std::size_t product(std::size_t a, std::size_t b) {
  std::size_t found;
  if (__builtin_mul_overflow(a, b, &found)) refuse_format("a size in it is absurd");
  return found;
}

Mapping::Mapping(int descriptor) {
  struct stat status {};
  if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode))
    throw Error(Fault::file, "The model cannot be read: it is not a file.", "Give the path of a .tightrope file.");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) refuse_format("it is empty");
  void* start = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (start == MAP_FAILED)
    throw Error(Fault::file, std::string("The model cannot be mapped: ") + std::strerror(errno) + ".",
                "Free some address space, or allow this user to read the file.");
  bytes_ = {static_cast<const std::byte*>(start), size};
  owned_ = true;
}

Mapping::~Mapping() {
  if (owned_) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

Artefact::Artefact(std::span<const std::byte> file) : file_(file) {
  if (file.size() < sizeof(Header)) refuse_format("it has only " + std::to_string(file.size()) + " bytes");
  const auto& header = *reinterpret_cast<const Header*>(file.data());
  check_header(header, file.size());
  const std::span entries(reinterpret_cast<const SectionEntry*>(file.data() + sizeof(Header)), header.sections);
  std::size_t end = sizeof(Header) + entries.size_bytes();
  for (const SectionEntry& entry : entries) {
    const std::string_view name(entry.name, strnlen(entry.name, sizeof entry.name));
    if (!is_readable(name) || name.size() == sizeof entry.name) refuse_format("a section has no readable name");
    if (!entries_.emplace(name, &entry).second) refuse_section(name, "is there twice");
    if (entry.offset % kAlignment != 0 || entry.offset < end || entry.offset > file.size() ||
        entry.size > file.size() - entry.offset)
      refuse_section(name, "lies outside its place");
    end = entry.offset + entry.size;
  }
}

const SectionEntry* Artefact::find(std::string_view name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : found->second;
}

Section Artefact::section(std::string_view name) const {
  const SectionEntry* entry = find(name);
  if (entry == nullptr) refuse_section(name, "is missing");
  return {static_cast<Element>(entry->element), file_.subspan(entry->offset, entry->size)};
}

const std::byte* Artefact::exactly(std::string_view name, Element element, std::size_t count,
                                   std::size_t size) const {
  const Section found = section(name);
  if (found.element != element) refuse_section(name, "holds something else");
  const std::size_t wanted = product(count, size);
  if (found.bytes.size() != wanted)
    refuse_section(name, "has " + std::to_string(found.bytes.size()) + " bytes, not " + std::to_string(wanted));
  return found.bytes.data();
}

}  // namespace tightrope
