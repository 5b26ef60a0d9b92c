package android.content;

import android.content.res.AssetManager;

/** As in Android. */
public abstract class Context {
    public abstract AssetManager getAssets();
}
