package android.content.res;

import java.io.Closeable;
import java.io.FileDescriptor;

/** As in Android. */
public abstract class AssetFileDescriptor implements Closeable {
    public abstract FileDescriptor getFileDescriptor();

    public abstract long getStartOffset();

    public abstract long getDeclaredLength();
}
