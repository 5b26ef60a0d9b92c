import Foundation

/// What the tokenizer that the model was trained with knows of each character.
///
/// The tables come with the model and were observed from that tokenizer: the system's own Unicode may be of another
/// version.
struct CharacterTables {
    struct Traits: OptionSet {
        let rawValue: UInt8

        static let removed = Traits(rawValue: 1)
        static let space = Traits(rawValue: 2)
        static let ideograph = Traits(rawValue: 4)
        static let punctuation = Traits(rawValue: 8)
        static let nonspacing = Traits(rawValue: 16)
        static let decomposes = Traits(rawValue: 32)
        static let capital = Traits(rawValue: 64)
        static let nonstarter = Traits(rawValue: 128)
    }

    /// The one capital that becomes two characters.
    static let dottedCapitalI: UInt32 = 0x130

    private static let paged: UInt32 = 0x30000
    private static let block: UInt32 = 64
    private static let hangul: UInt32 = 0xAC00
    private static let hangulCount: UInt32 = 11172

    private let pageOf: [UInt8]
    private let pages: [UInt8]
    private let ranges: [Int32]
    private let decompositions: [Int32]
    private let pool: [Int32]
    private let caseRuns: [Int32]
    private let marks: [Int32]

    /// Reads the tables.
    init(packed: Data) throws {
        var reader = Reader(packed)
        guard packed.count >= 40, reader.bytes(8) == Array("TRUNICOD".utf8), reader.number() == 1 else {
            throw TightropeError.damaged("The Unicode tables")
        }
        let counts = (0..<7).map { _ in Int(reader.number()) }
        pageOf = reader.bytes(counts[0])
        pages = reader.bytes(counts[1])
        reader.align(4)
        ranges = reader.signed(3 * counts[2])
        decompositions = reader.signed(2 * counts[3])
        pool = reader.signed(counts[4])
        caseRuns = reader.signed(3 * counts[5])
        marks = reader.signed(2 * counts[6])
        if reader.isShort {
            throw TightropeError.damaged("The Unicode tables")
        }
    }

    func traits(_ c: UInt32) -> Traits {
        if c < CharacterTables.paged {
            let page = Int(pageOf[Int(c / CharacterTables.block)])
            return Traits(rawValue: pages[page * Int(CharacterTables.block) + Int(c % CharacterTables.block)])
        }
        for at in stride(from: 0, to: ranges.count, by: 3)
        where UInt32(ranges[at]) <= c && c <= UInt32(ranges[at + 1]) {
            return Traits(rawValue: UInt8(ranges[at + 2]))
        }
        return []
    }

    /// The small letter of any capital but `dottedCapitalI`.
    func small(_ c: UInt32) -> UInt32 {
        let row = CharacterTables.firstNotBelow(caseRuns, width: 3, place: 1, c)
        return UInt32(Int32(c) + caseRuns[3 * row + 2])
    }

    /// The rank of the combining class of a mark that cannot be stripped.
    func order(_ c: UInt32) -> Int32 {
        marks[2 * CharacterTables.firstNotBelow(marks, width: 2, place: 0, c) + 1]
    }

    /// The canonical decomposition of a character that decomposes, but for marks that are stripped.
    func decomposition(_ c: UInt32) -> [UInt32] {
        if c >= CharacterTables.hangul && c < CharacterTables.hangul + CharacterTables.hangulCount {
            let index = c - CharacterTables.hangul
            let parts = [0x1100 + index / 588, 0x1161 + index % 588 / 28]
            return index % 28 == 0 ? parts : parts + [0x11A7 + index % 28]
        }
        let row = CharacterTables.firstNotBelow(decompositions, width: 2, place: 0, c)
        let to = UInt32(bitPattern: decompositions[2 * row + 1])
        let length = Int(to >> 24)
        let place = Int(to & 0xFFFFFF)
        return length == 1 ? [UInt32(place)] : pool[place..<(place + length)].map { UInt32($0) }
    }

    /// The first row, of rows so wide, whose number at a place is not below c.
    private static func firstNotBelow(_ table: [Int32], width: Int, place: Int, _ c: UInt32) -> Int {
        var low = 0
        var high = table.count / width
        while low < high {
            let middle = (low + high) / 2
            if table[width * middle + place] < Int32(c) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        return low
    }
}
