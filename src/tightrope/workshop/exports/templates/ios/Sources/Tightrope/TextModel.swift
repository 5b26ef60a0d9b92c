import CoreML
import Foundation

/// What the export says about the model: `bundle.json`.
public struct Settings: Decodable {
    public let digest: String
    public let task: String
    public let width: Int
    public let maxTokens: Int
    public let types: Bool
    public let normalized: Bool
    public let tolerance: Double
    public let defaultPrompt: String
    public let prompts: [String: String]
    public let output: String
    public let computeUnits: String

    var units: MLComputeUnits {
        switch computeUnits {
        case "CPU_ONLY": return .cpuOnly
        case "CPU_AND_GPU": return .cpuAndGPU
        case "CPU_AND_NE": return .cpuAndNeuralEngine
        default: return .all
        }
    }
}

/// Texts to vectors, or pairs of texts to scores.
///
/// The model pools over tokens by itself; what is left to do here is the tokenizer and, where the model leaves it, the
/// scaling to length 1. No padding: the model takes any length up to `settings.maxTokens`.
public final class TextModel {
    public let settings: Settings
    public let tokenizer: WordPiece
    private let model: MLModel

    /// The model among the package's resources, compiled for this device. `units` overrides those of the bundle.
    public static func open(units: MLComputeUnits? = nil) async throws -> TextModel {
        guard let folder = Bundle.module.url(forResource: "Resources", withExtension: nil) else {
            throw TightropeError.damaged("The package's resources")
        }
        return try await TextModel(folder: folder, units: units)
    }

    init(folder: URL, units: MLComputeUnits?) async throws {
        func data(_ name: String) throws -> Data { try Data(contentsOf: folder.appendingPathComponent(name)) }
        settings = try JSONDecoder().decode(Settings.self, from: data("bundle.json"))
        tokenizer = try WordPiece(packed: data("wordpiece.bin"), tables: data("unicode.bin"))
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units ?? settings.units
        let compiled = try await MLModel.compileModel(at: folder.appendingPathComponent("model.mlpackage"))
        defer { try? FileManager.default.removeItem(at: compiled) }
        model = try await MLModel.load(contentsOf: compiled, configuration: configuration)
    }

    /// The vector of a text, of length 1, with the model's default prompt before it.
    public func embed(_ text: String) throws -> [Float] {
        try embedAsWritten(settings.defaultPrompt + text)
    }

    /// The vector of a text with one of the model's prompts before it.
    public func embed(_ text: String, prompt: String) throws -> [Float] {
        guard let before = settings.prompts[prompt] else {
            throw TightropeError.unsupported("The model has no prompt \(prompt).")
        }
        return try embedAsWritten(before + text)
    }

    private func embedAsWritten(_ text: String) throws -> [Float] {
        try require("embedding")
        let ids = tokenizer.encode(text, limit: settings.maxTokens)
        let vector = try run(ids, types: [Int32](repeating: 0, count: ids.count))
        return settings.normalized ? vector : unitLength(vector)
    }

    /// What a model that scores says of two texts: one number, or one for each label.
    public func score(_ first: String, _ second: String) throws -> [Float] {
        try require("scoring")
        let (ids, types) = tokenizer.encode(first, second, limit: settings.maxTokens)
        return try run(ids, types: types)
    }

    private func require(_ task: String) throws {
        if settings.task != task {
            throw TightropeError.unsupported("The model is for \(settings.task), not for \(task).")
        }
    }

    private func run(_ ids: [Int32], types: [Int32]) throws -> [Float] {
        var inputs = [
            "input_ids": MLShapedArray<Int32>(scalars: ids, shape: [1, ids.count]),
            "attention_mask": MLShapedArray<Int32>(repeating: 1, shape: [1, ids.count]),
        ]
        if settings.types {
            inputs["token_type_ids"] = MLShapedArray<Int32>(scalars: types, shape: [1, types.count])
        }
        let features = try MLDictionaryFeatureProvider(
            dictionary: inputs.mapValues { MLFeatureValue(multiArray: MLMultiArray($0)) }
        )
        let answer = try model.prediction(from: features)
        guard let found = answer.featureValue(for: settings.output)?.multiArrayValue else {
            throw TightropeError.damaged("The model's answer")
        }
        return MLShapedArray<Float>(converting: found).scalars
    }
}

/// A vector scaled to length 1; one of zeros stays as it is.
public func unitLength(_ vector: [Float]) -> [Float] {
    let length = Float(max(vector.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot(), 1e-12))
    return vector.map { $0 / length }
}

/// The cosine of the angle between two vectors of the same width.
public func cosine(_ a: [Float], _ b: [Float]) -> Double {
    func product(_ x: [Float], _ y: [Float]) -> Double {
        zip(x, y).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
    }
    return product(a, b) / max((product(a, a) * product(b, b)).squareRoot(), 1e-24)
}
