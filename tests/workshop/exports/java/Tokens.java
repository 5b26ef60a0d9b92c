import dev.tightrope.Settings;
import dev.tightrope.Vectors;
import dev.tightrope.WordPiece;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Base64;
import java.util.stream.Collectors;

/** Answers each line of base64 (UTF-16, big-endian: also halves of pairs) with its ids; two of them are a pair. */
final class Tokens {
    public static void main(String[] arguments) throws IOException {
        Path folder = Path.of(arguments[0]);
        WordPiece tokenizer = new WordPiece(
                Files.readAllBytes(folder.resolve("wordpiece.bin")), Files.readAllBytes(folder.resolve("unicode.bin")));
        int limit = Integer.parseInt(arguments[1]);
        PrintStream out = new PrintStream(System.out, false, "US-ASCII");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] parts = line.split("\t", -1);
            if (parts.length == 1) {
                out.println(joined(tokenizer.encode(text(parts[0]), limit)));
            } else {
                WordPiece.Pair pair = tokenizer.encodePair(text(parts[0]), text(parts[1]), limit);
                out.println(joined(pair.ids) + "\t" + joined(pair.types));
            }
        }
        out.flush();
        Settings settings = new Settings(Files.newInputStream(folder.resolve("bundle.properties")));
        System.err.println(settings.digest + " " + settings.maxTokens + " " + settings.lengthFor(17) + " "
                + settings.prompt("query") + " " + Vectors.cosine(
                        Vectors.unitLength(new float[] {3, 4}), new float[] {0.6f, 0.8f}));
    }

    private static String text(String field) {
        byte[] bytes = Base64.getDecoder().decode(field);
        char[] units = new char[bytes.length / 2];
        for (int i = 0; i < units.length; i++) {
            units[i] = (char) ((bytes[2 * i] & 0xFF) << 8 | bytes[2 * i + 1] & 0xFF);
        }
        return new String(units);
    }

    private static String joined(int[] ids) {
        return Arrays.stream(ids).mapToObj(Integer::toString).collect(Collectors.joining(" "));
    }
}
