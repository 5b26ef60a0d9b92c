// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "Tightrope",
    platforms: [.iOS(.v18), .macOS(.v15)],
    products: [.library(name: "Tightrope", targets: ["Tightrope"])],
    targets: [
        .target(name: "Tightrope", resources: [.copy("Resources")]),
        .testTarget(name: "TightropeTests", dependencies: ["Tightrope"], resources: [.copy("Resources")]),
    ]
)
