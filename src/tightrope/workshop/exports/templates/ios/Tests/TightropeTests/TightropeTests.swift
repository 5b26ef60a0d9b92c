import XCTest

@testable import Tightrope

/// What the bundle's own tokenizer and the recorded answers say, and what the package makes of them.
final class TightropeTests: XCTestCase {
    private struct Vectors: Decodable {
        struct Tokens: Decodable {
            let texts: [String]
            let ids: [Int32]
            let types: [Int32]
        }

        struct Answer: Decodable {
            let texts: [String]
            let values: [Float]
        }

        let tokens: [Tokens]
        let answers: [Answer]
    }

    private func vectors() throws -> Vectors {
        let url = try XCTUnwrap(Bundle.module.url(forResource: "Resources/vectors", withExtension: "json"))
        return try JSONDecoder().decode(Vectors.self, from: Data(contentsOf: url))
    }

    func testTheTokenizerGivesTheIdsOfTheBundlesOwn() async throws {
        let model = try await TextModel.open()
        let limit = model.settings.maxTokens
        for item in try vectors().tokens {
            if item.texts.count == 1 {
                XCTAssertEqual(model.tokenizer.encode(item.texts[0], limit: limit), item.ids, item.texts[0])
            } else {
                let pair = model.tokenizer.encode(item.texts[0], item.texts[1], limit: limit)
                XCTAssertEqual(pair.ids, item.ids, item.texts[0])
                XCTAssertEqual(pair.types, item.types, item.texts[0])
            }
        }
    }

    func testTheModelAnswersAsTheBundleSays() async throws {
        let model = try await TextModel.open()
        for item in try vectors().answers {
            if item.texts.count == 1 {
                let found = cosine(try model.embed(item.texts[0]), item.values)
                XCTAssertGreaterThanOrEqual(found, model.settings.tolerance, item.texts[0])
            } else {
                let scores = try model.score(item.texts[0], item.texts[1])
                for (score, expected) in zip(scores, item.values) {
                    XCTAssertEqual(Double(score), Double(expected), accuracy: model.settings.tolerance)
                }
            }
        }
    }
}
