// Which instruction sets this processor has, and the kernels in use.
#pragma once

#include <string>
#include <vector>

#include "kernels/kernels.hpp"

namespace tightrope {

// Everything that can run here, the best first.
const std::vector<const Kernels*>& available();

// The best one, or the one that TIGHTROPE_ISA names. Error(unsupported) if that is unknown or not here.
const Kernels& chosen();

}  // namespace tightrope
