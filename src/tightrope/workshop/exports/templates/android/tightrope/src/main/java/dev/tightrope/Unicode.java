package dev.tightrope;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.function.IntConsumer;

/**
 * What the tokenizer that the model was trained with knows of each character.
 *
 * <p>The tables come with the model and were observed from that tokenizer: the system's own Unicode may be of another
 * version.
 */
final class Unicode {
    static final int REMOVED = 1;
    static final int SPACE = 2;
    static final int IDEOGRAPH = 4;
    static final int PUNCTUATION = 8;
    static final int NONSPACING = 16;
    static final int DECOMPOSES = 32;
    static final int CAPITAL = 64;
    static final int NONSTARTER = 128;

    /** The one capital that becomes two characters. */
    static final int DOTTED_CAPITAL_I = 0x130;

    private static final long MAGIC = 0x444f43494e555254L; // "TRUNICOD"
    private static final int PAGED = 0x30000;
    private static final int BLOCK = 64;
    private static final int HANGUL = 0xAC00;
    private static final int HANGUL_COUNT = 11172;

    private final byte[] pageOf;
    private final byte[] pages;
    private final int[] ranges;
    private final int[] decompositions;
    private final int[] pool;
    private final int[] caseRuns;
    private final int[] marks;

    /** Reads the tables. Throws {@link IllegalArgumentException} for anything else. */
    Unicode(byte[] packed) {
        ByteBuffer data = ByteBuffer.wrap(packed).order(ByteOrder.LITTLE_ENDIAN);
        if (packed.length < 40 || data.getLong() != MAGIC || data.getInt() != 1) {
            throw new IllegalArgumentException("These are no Unicode tables. Export the bundle again.");
        }
        int[] counts = new int[7];
        for (int i = 0; i < counts.length; i++) {
            counts[i] = data.getInt();
        }
        pageOf = new byte[counts[0]];
        pages = new byte[counts[1]];
        data.get(pageOf);
        data.get(pages);
        data.position((data.position() + 3) / 4 * 4);
        ranges = ints(data, 3 * counts[2]);
        decompositions = ints(data, 2 * counts[3]);
        pool = ints(data, counts[4]);
        caseRuns = ints(data, 3 * counts[5]);
        marks = ints(data, 2 * counts[6]);
    }

    private static int[] ints(ByteBuffer data, int count) {
        int[] found = new int[count];
        for (int i = 0; i < count; i++) {
            found[i] = data.getInt();
        }
        return found;
    }

    /** The traits of a character, as bits. */
    int traits(int c) {
        if (c < PAGED) {
            return pages[(pageOf[c / BLOCK] & 0xFF) * BLOCK + c % BLOCK] & 0xFF;
        }
        for (int i = 0; i < ranges.length; i += 3) {
            if (ranges[i] <= c && c <= ranges[i + 1]) {
                return ranges[i + 2];
            }
        }
        return 0;
    }

    /** The small letter of any capital but {@link #DOTTED_CAPITAL_I}. */
    int small(int c) {
        return c + caseRuns[3 * firstNotBelow(caseRuns, 3, 1, c) + 2];
    }

    /** The rank of the combining class of a mark that cannot be stripped. */
    int order(int c) {
        return marks[2 * firstNotBelow(marks, 2, 0, c) + 1];
    }

    /** Each character of the canonical decomposition of one that decomposes, but for marks that are stripped. */
    void decompose(int c, IntConsumer take) {
        if (c >= HANGUL && c < HANGUL + HANGUL_COUNT) {
            int index = c - HANGUL;
            take.accept(0x1100 + index / 588);
            take.accept(0x1161 + index % 588 / 28);
            if (index % 28 != 0) {
                take.accept(0x11A7 + index % 28);
            }
            return;
        }
        int to = decompositions[2 * firstNotBelow(decompositions, 2, 0, c) + 1];
        int length = to >>> 24;
        int place = to & 0xFFFFFF;
        if (length == 1) {
            take.accept(place);
            return;
        }
        for (int i = 0; i < length; i++) {
            take.accept(pool[place + i]);
        }
    }

    /** The first row, of rows so wide, whose number at a place is not below c. */
    private static int firstNotBelow(int[] table, int width, int place, int c) {
        int low = 0;
        int high = table.length / width;
        while (low < high) {
            int middle = (low + high) >>> 1;
            if (table[width * middle + place] < c) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        return low;
    }
}
