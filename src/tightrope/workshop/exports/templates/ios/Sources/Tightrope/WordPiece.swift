import Foundation

/// Text to token ids, exactly as the tokenizer that the model was trained with.
///
/// Reads the packed form that tightrope writes: three tries in one double array, whose units are the byte that leads
/// there (8 bits), two flags, and an id or the base of the children.
public struct WordPiece {
    private static let ends: UInt32 = 1 << 8
    private static let leaf: UInt32 = 1 << 9
    private static let payload: UInt32 = 10
    private static let end: UInt32 = 0xFF
    private static let mostAdded = 256

    let unicode: CharacterTables
    private let units: [UInt32]
    let cleans: Bool
    let partsIdeographs: Bool
    let strips: Bool
    let lowers: Bool
    private let cls: Int32
    private let sep: Int32
    let unknown: Int32
    let mostCharacters: Int
    let whole: UInt32
    let inner: UInt32
    private let added: UInt32

    /// Reads the packed tokenizer and the tables of characters that come with it.
    public init(packed: Data, tables: Data) throws {
        unicode = try CharacterTables(packed: tables)
        var reader = Reader(packed)
        guard reader.bytes(8) == Array("TRPIECES".utf8), reader.number() == 1 else {
            throw TightropeError.damaged("The tokenizer")
        }
        let options = reader.number()
        cleans = options & 1 != 0
        partsIdeographs = options & 2 != 0
        strips = options & 4 != 0
        lowers = options & 8 != 0
        cls = Int32(bitPattern: reader.number())
        sep = Int32(bitPattern: reader.number())
        unknown = Int32(bitPattern: reader.number())
        _ = reader.number()
        mostCharacters = Int(reader.number())
        let count = Int(reader.number())
        whole = reader.number()
        inner = reader.number()
        added = reader.number()
        _ = reader.numbers(3)
        units = reader.numbers(count)
        if reader.isShort {
            throw TightropeError.damaged("The tokenizer")
        }
    }

    /// The ids of a text, special tokens and all, cut to a limit of two or more.
    public func encode(_ text: String, limit: Int) -> [Int32] {
        [cls] + cut(text, keep: limit - 2, early: true).values + [sep]
    }

    /// The ids of two texts as one input, cut to a limit of three or more, and for each of which text it is.
    public func encode(_ first: String, _ second: String, limit: Int) -> (ids: [Int32], types: [Int32]) {
        let room = limit - 3
        let a = cut(first, keep: room, early: false)
        let b = cut(second, keep: room, early: false)
        let (keptA, keptB) = WordPiece.share(a.count, b.count, room)
        let ids = [cls] + a.values.prefix(keptA) + [sep] + b.values.prefix(keptB) + [sep]
        let types = [Int32](repeating: 0, count: keptA + 2) + [Int32](repeating: 1, count: keptB + 1)
        return (ids, types)
    }

    /// The longer text is cut first; if both must be, they share the room, and the odd token is the longer one's.
    private static func share(_ first: Int, _ second: Int, _ room: Int) -> (Int, Int) {
        if first + second <= room {
            return (first, second)
        }
        let shorter = min(first, second)
        let both = shorter > room - min(shorter, room)
        let small = both ? room / 2 : shorter
        return first > second ? (room - small, small) : (small, room - small)
    }

    private func cut(_ text: String, keep: Int, early: Bool) -> Ids {
        precondition(keep >= 0, "The limit leaves no room for the special tokens.")
        var cutter = Cutter(of: self, ids: Ids(keep: keep))
        cutter.cut(text, early: early)
        return cutter.ids
    }

    /// Walks a trie along bytes: the longest piece, or nil.
    func longest(_ root: UInt32, _ bytes: ArraySlice<UInt8>) -> (length: Int, id: Int32)? {
        var base = root
        var best: (length: Int, id: Int32)?
        var length = 0
        for byte in bytes {
            let node = units[Int(base ^ UInt32(byte))]
            if node & 0xFF != UInt32(byte) {
                break
            }
            length += 1
            base = node >> WordPiece.payload
            if node & WordPiece.leaf != 0 {
                return (length, Int32(base))
            }
            if node & WordPiece.ends != 0 {
                best = (length, Int32(units[Int(base ^ WordPiece.end)] >> WordPiece.payload))
            }
        }
        return best
    }

    /// The added token that begins at a byte of a text, or nil.
    func addedToken(_ bytes: ArraySlice<UInt8>) -> (length: Int, id: Int32)? {
        longest(added, bytes.prefix(WordPiece.mostAdded))
    }
}

/// Ids, all of them counted and the first so many kept.
struct Ids {
    let keep: Int
    private(set) var values: [Int32] = []
    private(set) var count = 0

    init(keep: Int) {
        self.keep = keep
    }

    var isFull: Bool { count > keep }

    mutating func push(_ id: Int32) {
        if count < keep {
            values.append(id)
        }
        count += 1
    }

    mutating func takeBack(to count: Int) {
        self.count = count
        values.removeLast(values.count - min(count, values.count))
    }
}

/// One text on its way to ids: characters are normalised into a word, and a word that ends is cut into pieces.
struct Cutter {
    private let tokenizer: WordPiece
    private(set) var ids: Ids
    private var word: [UInt32] = []
    private var length = 0
    private var settled = 0

    init(of tokenizer: WordPiece, ids: Ids) {
        self.tokenizer = tokenizer
        self.ids = ids
    }

    mutating func cut(_ text: String, early: Bool) {
        let bytes = [UInt8](text.utf8)
        var at = 0
        while at < bytes.count && !(early && ids.isFull) {
            if let match = tokenizer.addedToken(bytes[at...]) {
                endWord()
                ids.push(match.id)
                at += match.length
                continue
            }
            let next = Cutter.decoded(bytes, at)
            character(next.character)
            at += next.length
        }
        endWord()
    }

    /// One character of UTF-8, and how many bytes it takes.
    private static func decoded(_ bytes: [UInt8], _ at: Int) -> (character: UInt32, length: Int) {
        let first = UInt32(bytes[at])
        func tail(_ offset: Int) -> UInt32 { UInt32(bytes[at + offset]) & 0x3F }
        if first < 0x80 { return (first, 1) }
        if first < 0xE0 { return ((first & 0x1F) << 6 | tail(1), 2) }
        if first < 0xF0 { return ((first & 0x0F) << 12 | tail(1) << 6 | tail(2), 3) }
        return ((first & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4)
    }

    /// The order is that of BERT's normaliser: clean, set ideographs apart, decompose and strip, lower.
    private mutating func character(_ c: UInt32) {
        let traits = tokenizer.unicode.traits(c)
        if tokenizer.cleans && traits.contains(.removed) {
            return
        }
        let apart = tokenizer.partsIdeographs && traits.contains(.ideograph)
        if apart {
            endWord()
        }
        if tokenizer.strips && traits.contains(.decomposes) {
            for part in tokenizer.unicode.decomposition(c) {
                decomposed(part, tokenizer.unicode.traits(part))
            }
        } else {
            decomposed(c, traits)
        }
        if apart {
            endWord()
        }
    }

    private mutating func decomposed(_ c: UInt32, _ traits: CharacterTables.Traits) {
        if tokenizer.strips && traits.contains(.nonspacing) {
            if !traits.contains(.nonstarter) {
                settled = word.count
            }
        } else if tokenizer.lowers && c == CharacterTables.dottedCapitalI {
            push(0x69)
            push(0x307)
        } else if tokenizer.lowers && traits.contains(.capital) {
            push(tokenizer.unicode.small(c))
        } else {
            normalised(c, traits)
        }
    }

    private mutating func normalised(_ c: UInt32, _ traits: CharacterTables.Traits) {
        if traits.contains(.space) {
            endWord()
        } else if traits.contains(.punctuation) {
            endWord()
            push(c)
            endWord()
        } else if tokenizer.strips && traits.contains(.nonstarter) {
            pushMark(c)
        } else {
            push(c)
        }
    }

    private mutating func push(_ c: UInt32) {
        length += 1
        if length <= tokenizer.mostCharacters {
            word.append(c)
            settled = word.count
        }
    }

    /// Canonical ordering: a mark moves before the marks of higher classes right before it.
    private mutating func pushMark(_ c: UInt32) {
        length += 1
        if length > tokenizer.mostCharacters {
            return
        }
        var place = word.count
        while place > settled && tokenizer.unicode.order(word[place - 1]) > tokenizer.unicode.order(c) {
            place -= 1
        }
        word.insert(c, at: place)
    }

    private mutating func endWord() {
        if length > tokenizer.mostCharacters {
            ids.push(tokenizer.unknown)
        } else if length > 0 {
            cutWord()
        }
        word.removeAll(keepingCapacity: true)
        length = 0
        settled = 0
    }

    /// The longest piece first, again and again; a word that cannot be cut to its end is one unknown token.
    private mutating func cutWord() {
        var scalars = String.UnicodeScalarView()
        scalars.append(contentsOf: word.compactMap { UnicodeScalar($0) })
        let bytes = [UInt8](String(scalars).utf8)
        let before = ids.count
        var root = tokenizer.whole
        var at = 0
        while at < bytes.count {
            guard let match = tokenizer.longest(root, bytes[at...]) else {
                ids.takeBack(to: before)
                ids.push(tokenizer.unknown)
                return
            }
            ids.push(match.id)
            at += match.length
            root = tokenizer.inner
        }
    }
}
