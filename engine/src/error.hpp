// One kind of error for the whole engine: what is wrong, with the value, and the way out.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace tightrope {

enum class Fault { argument = 1, format = 2, file = 3, unsupported = 4, closed = 5, memory = 6 };

class Error : public std::runtime_error {
 public:
  Error(Fault fault, const std::string& what, std::string hint)
      : std::runtime_error(what), fault(fault), hint(std::move(hint)) {}

  const Fault fault;
  const std::string hint;
};

}  // namespace tightrope
