package dev.tightrope;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import android.content.Context;
import androidx.test.ext.junit.runners.AndroidJUnit4;
import androidx.test.platform.app.InstrumentationRegistry;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.junit.Test;
import org.junit.runner.RunWith;

/** The whole model on the device against the answers recorded in the bundle: {@code answers.txt}. */
@RunWith(AndroidJUnit4.class)
public class TextModelTest {
    @Test
    public void answersAsTheBundleSays() throws IOException {
        Context app = InstrumentationRegistry.getInstrumentation().getTargetContext();
        Context test = InstrumentationRegistry.getInstrumentation().getContext();
        int count = 0;
        try (TextModel model = Models.open(app, Options.usual());
                BufferedReader lines = new BufferedReader(
                        new InputStreamReader(test.getAssets().open("answers.txt"), StandardCharsets.US_ASCII))) {
            double tolerance = model.settings().tolerance;
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] fields = line.split("\t", -1);
                float[] expected = floats(fields[2]);
                if (fields[1].equals("-")) {
                    double cosine = Vectors.cosine(expected, model.embed(text(fields[0])));
                    assertTrue(text(fields[0]) + ": " + cosine, cosine >= tolerance);
                } else {
                    float[] scores = model.score(text(fields[0]), text(fields[1]));
                    for (int i = 0; i < expected.length; i++) {
                        assertEquals(expected[i], scores[i], tolerance);
                    }
                }
                count++;
            }
        }
        assertTrue(count > 0);
    }

    private static String text(String field) {
        return new String(Base64.getDecoder().decode(field), StandardCharsets.UTF_8);
    }

    private static float[] floats(String field) {
        byte[] bytes = Base64.getDecoder().decode(field);
        float[] found = new float[bytes.length / 4];
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(found);
        return found;
    }
}
