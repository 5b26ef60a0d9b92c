import Foundation

/// What can go wrong, in words for people.
public enum TightropeError: Error, CustomStringConvertible {
    case damaged(String)
    case unsupported(String)

    public var description: String {
        switch self {
        case .damaged(let what): return "\(what) cannot be read. Export the bundle again."
        case .unsupported(let what): return what
        }
    }
}

/// Reads little-endian numbers one after another; past the end there are zeros, and `isShort` says so.
struct Reader {
    private let data: [UInt8]
    private var at = 0
    private(set) var isShort = false

    init(_ data: Data) {
        self.data = [UInt8](data)
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        guard count >= 0, at + count <= data.count else {
            isShort = true
            return []
        }
        defer { at += count }
        return Array(data[at..<(at + count)])
    }

    mutating func number() -> UInt32 {
        let four = bytes(4)
        return four.isEmpty ? 0 : four.reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }

    mutating func numbers(_ count: Int) -> [UInt32] {
        guard count >= 0, at + 4 * count <= data.count else {
            isShort = true
            return []
        }
        return (0..<count).map { _ in number() }
    }

    mutating func signed(_ count: Int) -> [Int32] {
        numbers(count).map { Int32(bitPattern: $0) }
    }

    mutating func align(_ multiple: Int) {
        at = (at + multiple - 1) / multiple * multiple
    }
}
