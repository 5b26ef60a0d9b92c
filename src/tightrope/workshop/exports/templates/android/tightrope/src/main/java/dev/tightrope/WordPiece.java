package dev.tightrope;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * Text to token ids, exactly as the tokenizer that the model was trained with.
 *
 * <p>Reads the packed form that tightrope writes: three tries in one double array, whose units are the byte that leads
 * there (8 bits), two flags, and an id or the base of the children. Safe for use from several threads.
 */
public final class WordPiece {
    private static final long MAGIC = 0x5345434549505254L; // "TRPIECES"
    private static final int HEADER = 64;
    private static final int ENDS = 1 << 8;
    private static final int LEAF = 1 << 9;
    private static final int PAYLOAD = 10;
    private static final int END = 0xFF;
    private static final int MOST_ADDED = 256;

    private final Unicode unicode;
    private final int[] units;
    private final boolean cleans;
    private final boolean partsIdeographs;
    private final boolean strips;
    private final boolean lowers;
    private final int cls;
    private final int sep;
    private final int unknown;
    private final int mostCharacters;
    private final int whole;
    private final int inner;
    private final int added;

    /** Reads the packed tokenizer and the tables of characters that come with it. */
    public WordPiece(byte[] packed, byte[] tables) {
        ByteBuffer data = ByteBuffer.wrap(packed).order(ByteOrder.LITTLE_ENDIAN);
        if (packed.length < HEADER || data.getLong(0) != MAGIC || data.getInt(8) != 1) {
            throw new IllegalArgumentException("This is no packed tokenizer. Export the bundle again.");
        }
        unicode = new Unicode(tables);
        int options = data.getInt(12);
        cleans = (options & 1) != 0;
        partsIdeographs = (options & 2) != 0;
        strips = (options & 4) != 0;
        lowers = (options & 8) != 0;
        cls = data.getInt(16);
        sep = data.getInt(20);
        unknown = data.getInt(24);
        mostCharacters = data.getInt(32);
        units = new int[data.getInt(36)];
        whole = data.getInt(40);
        inner = data.getInt(44);
        added = data.getInt(48);
        if (packed.length != HEADER + 4L * units.length) {
            throw new IllegalArgumentException("The packed tokenizer is cut short. Export the bundle again.");
        }
        data.position(HEADER);
        data.asIntBuffer().get(units);
    }

    /** The ids of a text, special tokens and all, cut to a limit of two or more. */
    public int[] encode(String text, int limit) {
        Ids found = cut(text, limit - 2, true);
        int[] ids = new int[found.kept() + 2];
        ids[0] = cls;
        found.copyTo(ids, 1, found.kept());
        ids[ids.length - 1] = sep;
        return ids;
    }

    /** The ids of two texts as one input, cut to a limit of three or more; {@link Pair#types} tells them apart. */
    public Pair encodePair(String first, String second, int limit) {
        int room = limit - 3;
        Ids a = cut(first, room, false);
        Ids b = cut(second, room, false);
        int[] kept = share(a.count, b.count, room);
        int[] ids = new int[kept[0] + kept[1] + 3];
        int[] types = new int[ids.length];
        ids[0] = cls;
        a.copyTo(ids, 1, kept[0]);
        ids[kept[0] + 1] = sep;
        b.copyTo(ids, kept[0] + 2, kept[1]);
        ids[ids.length - 1] = sep;
        Arrays.fill(types, kept[0] + 2, types.length, 1);
        return new Pair(ids, types);
    }

    /** Ids, and for each whether it is of the first text (0) or the second (1). */
    public static final class Pair {
        public final int[] ids;
        public final int[] types;

        Pair(int[] ids, int[] types) {
            this.ids = ids;
            this.types = types;
        }
    }

    /** The longer text is cut first; if both must be, they share the room, and the odd token is the longer one's. */
    private static int[] share(int first, int second, int room) {
        if (first + second <= room) {
            return new int[] {first, second};
        }
        int shorter = Math.min(first, second);
        boolean both = shorter > room - Math.min(shorter, room);
        int small = both ? room / 2 : shorter;
        return first > second ? new int[] {room - small, small} : new int[] {small, room - small};
    }

    private Ids cut(String text, int keep, boolean early) {
        if (keep < 0) {
            throw new IllegalArgumentException("The limit leaves no room for the special tokens.");
        }
        Ids ids = new Ids(keep);
        new Cutter(ids).cut(whole(text), early);
        return ids;
    }

    /** Text as UTF-8 can hold it: half of a surrogate pair becomes U+FFFD. */
    private static String whole(String text) {
        StringBuilder clean = null;
        for (int at = 0; at < text.length(); at++) {
            int c = text.codePointAt(at);
            if (c >= Character.MIN_SUPPLEMENTARY_CODE_POINT) {
                at++;
            } else if (c >= Character.MIN_SURROGATE && c <= Character.MAX_SURROGATE) {
                clean = clean == null ? new StringBuilder(text) : clean;
                clean.setCharAt(at, '\uFFFD');
            }
        }
        return clean == null ? text : clean.toString();
    }

    /** The first byte of a character in UTF-8. */
    private static int lead(int c) {
        return c < 0x80 ? c : c < 0x800 ? 0xC0 | c >> 6 : c < 0x10000 ? 0xE0 | c >> 12 : 0xF0 | c >> 18;
    }

    /** Walks a trie along bytes: length and id of the longest piece, or a length of 0. */
    private long longest(int root, byte[] bytes, int from, int to) {
        int base = root;
        long best = 0;
        for (int i = from; i < to; ) {
            int value = bytes[i] & 0xFF;
            int node = units[base ^ value];
            if ((node & 0xFF) != value) {
                break;
            }
            i++;
            base = node >>> PAYLOAD;
            if ((node & LEAF) != 0) {
                return match(i - from, base);
            }
            if ((node & ENDS) != 0) {
                best = match(i - from, units[base ^ END] >>> PAYLOAD);
            }
        }
        return best;
    }

    private static long match(int length, int id) {
        return (long) length << 32 | id;
    }

    /** Ids, all of them counted and the first so many kept. */
    private static final class Ids {
        private final int keep;
        private int[] values = new int[32];
        private int count;

        Ids(int keep) {
            this.keep = keep;
        }

        int kept() {
            return Math.min(count, keep);
        }

        boolean isFull() {
            return count > keep;
        }

        void push(int id) {
            if (count < keep) {
                if (count == values.length) {
                    values = Arrays.copyOf(values, 2 * count);
                }
                values[count] = id;
            }
            count++;
        }

        void copyTo(int[] target, int at, int length) {
            System.arraycopy(values, 0, target, at, length);
        }
    }

    /** One text on its way to ids: characters are normalised into a word, and a word that ends is cut into pieces. */
    private final class Cutter {
        private final Ids ids;
        private final int[] word = new int[mostCharacters];
        private int length;
        private int settled;

        Cutter(Ids ids) {
            this.ids = ids;
        }

        void cut(String text, boolean early) {
            int at = 0;
            while (at < text.length() && !(early && ids.isFull())) {
                int next = added(text, at);
                if (next > at) {
                    at = next;
                    continue;
                }
                int c = text.codePointAt(at);
                at += Character.charCount(c);
                character(c);
            }
            endWord();
        }

        /** The end of the added token that begins here, once it is pushed; or where it would begin. */
        private int added(String text, int at) {
            int first = lead(text.codePointAt(at));
            if ((units[added ^ first] & 0xFF) != first) {
                return at;
            }
            int end = Math.min(text.length(), at + MOST_ADDED);
            end -= Character.isHighSurrogate(text.charAt(end - 1)) ? 1 : 0;
            byte[] bytes = text.substring(at, end).getBytes(StandardCharsets.UTF_8);
            long found = longest(added, bytes, 0, Math.min(bytes.length, MOST_ADDED));
            if (found == 0) {
                return at;
            }
            endWord();
            ids.push((int) found);
            return at + new String(bytes, 0, (int) (found >>> 32), StandardCharsets.UTF_8).length();
        }

        /** The order is that of BERT's normaliser: clean, set ideographs apart, decompose and strip, lower. */
        private void character(int c) {
            int traits = unicode.traits(c);
            if (cleans && (traits & Unicode.REMOVED) != 0) {
                return;
            }
            boolean apart = partsIdeographs && (traits & Unicode.IDEOGRAPH) != 0;
            if (apart) {
                endWord();
            }
            if (strips && (traits & Unicode.DECOMPOSES) != 0) {
                unicode.decompose(c, part -> decomposed(part, unicode.traits(part)));
            } else {
                decomposed(c, traits);
            }
            if (apart) {
                endWord();
            }
        }

        private void decomposed(int c, int traits) {
            if (strips && (traits & Unicode.NONSPACING) != 0) {
                if ((traits & Unicode.NONSTARTER) == 0) {
                    settled = Math.min(length, mostCharacters);
                }
            } else if (lowers && c == Unicode.DOTTED_CAPITAL_I) {
                push('i');
                push(0x307);
            } else if (lowers && (traits & Unicode.CAPITAL) != 0) {
                push(unicode.small(c));
            } else {
                normalised(c, traits);
            }
        }

        private void normalised(int c, int traits) {
            if ((traits & Unicode.SPACE) != 0) {
                endWord();
            } else if ((traits & Unicode.PUNCTUATION) != 0) {
                endWord();
                push(c);
                endWord();
            } else if (strips && (traits & Unicode.NONSTARTER) != 0) {
                pushMark(c);
            } else {
                push(c);
            }
        }

        private void push(int c) {
            if (++length <= mostCharacters) {
                word[length - 1] = c;
                settled = length;
            }
        }

        /** Canonical ordering: a mark moves before the marks of higher classes right before it. */
        private void pushMark(int c) {
            if (++length > mostCharacters) {
                return;
            }
            int place = length - 1;
            while (place > settled && unicode.order(word[place - 1]) > unicode.order(c)) {
                word[place] = word[place - 1];
                place--;
            }
            word[place] = c;
        }

        private void endWord() {
            if (length > mostCharacters) {
                ids.push(unknown);
            } else if (length > 0) {
                cutWord(new String(word, 0, length).getBytes(StandardCharsets.UTF_8));
            }
            length = 0;
            settled = 0;
        }

        /** The longest piece first, again and again; a word that cannot be cut to its end is one unknown token. */
        private void cutWord(byte[] bytes) {
            int before = ids.count;
            int root = whole;
            for (int at = 0; at < bytes.length; root = inner) {
                long found = longest(root, bytes, at, bytes.length);
                if (found == 0) {
                    ids.count = before;
                    ids.push(unknown);
                    return;
                }
                ids.push((int) found);
                at += (int) (found >>> 32);
            }
        }
    }
}
