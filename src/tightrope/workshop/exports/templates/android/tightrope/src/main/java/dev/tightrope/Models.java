package dev.tightrope;

import android.content.Context;
import android.content.res.AssetFileDescriptor;
import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;

/** Opens the model among an app's assets. */
public final class Models {
    private static final String FOLDER = "tightrope/";

    private Models() {}

    /** The model, ready for use. Close it when done. */
    public static TextModel open(Context context, Options options) throws IOException {
        Settings settings;
        try (InputStream stream = context.getAssets().open(FOLDER + "bundle.properties")) {
            settings = new Settings(stream);
        }
        WordPiece tokenizer =
                new WordPiece(bytes(context, "wordpiece.bin"), bytes(context, "unicode.bin"));
        return new TextModel(tokenizer, settings, new LiteRtRunner(mapped(context), settings, options));
    }

    private static MappedByteBuffer mapped(Context context) throws IOException {
        try (AssetFileDescriptor file = context.getAssets().openFd(FOLDER + "model.tflite");
                FileInputStream stream = new FileInputStream(file.getFileDescriptor())) {
            return stream.getChannel()
                    .map(FileChannel.MapMode.READ_ONLY, file.getStartOffset(), file.getDeclaredLength());
        }
    }

    private static byte[] bytes(Context context, String name) throws IOException {
        try (InputStream stream = context.getAssets().open(FOLDER + name)) {
            ByteArrayOutputStream whole = new ByteArrayOutputStream();
            byte[] part = new byte[16384];
            for (int count = stream.read(part); count >= 0; count = stream.read(part)) {
                whole.write(part, 0, count);
            }
            return whole.toByteArray();
        }
    }
}
