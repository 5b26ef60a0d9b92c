package dev.tightrope;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertTrue;

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.junit.Test;

/** The tokenizer against ids that the bundle's own one gave: {@code tokens.txt}. */
public class WordPieceTest {
    @Test
    public void givesTheIdsOfTheBundlesTokenizer() throws IOException {
        Settings settings = new Settings(resource("tightrope/bundle.properties"));
        WordPiece tokenizer = new WordPiece(bytes("tightrope/wordpiece.bin"), bytes("tightrope/unicode.bin"));
        int count = 0;
        try (BufferedReader lines =
                new BufferedReader(new InputStreamReader(resource("tokens.txt"), StandardCharsets.US_ASCII))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] fields = line.split("\t", -1);
                String first = text(fields[0]);
                if (fields[1].equals("-")) {
                    assertArrayEquals(first, numbers(fields[2]), tokenizer.encode(first, settings.maxTokens));
                } else {
                    WordPiece.Pair pair = tokenizer.encodePair(first, text(fields[1]), settings.maxTokens);
                    assertArrayEquals(first, numbers(fields[2]), pair.ids);
                    assertArrayEquals(first, numbers(fields[3]), pair.types);
                }
                count++;
            }
        }
        assertTrue(count > 20);
    }

    private static String text(String field) {
        return new String(Base64.getDecoder().decode(field), StandardCharsets.UTF_8);
    }

    private static int[] numbers(String field) {
        String[] parts = field.split(" ");
        int[] found = new int[parts.length];
        for (int i = 0; i < parts.length; i++) {
            found[i] = Integer.parseInt(parts[i]);
        }
        return found;
    }

    private static InputStream resource(String name) {
        return WordPieceTest.class.getClassLoader().getResourceAsStream(name);
    }

    private static byte[] bytes(String name) throws IOException {
        try (InputStream stream = resource(name)) {
            ByteArrayOutputStream whole = new ByteArrayOutputStream();
            byte[] part = new byte[16384];
            for (int count = stream.read(part); count >= 0; count = stream.read(part)) {
                whole.write(part, 0, count);
            }
            return whole.toByteArray();
        }
    }
}
