package dev.tightrope;

/** How the model is run: on how many threads, and by which part of the phone. */
public final class Options {
    /** Which part of the phone multiplies. What it cannot do falls back to the CPU. */
    public enum Delegate {
        XNNPACK,
        NNAPI,
        GPU
    }

    public final int threads;
    public final Delegate delegate;

    public Options(int threads, Delegate delegate) {
        if (threads < 1) {
            throw new IllegalArgumentException(threads + " threads cannot run anything.");
        }
        this.threads = threads;
        this.delegate = delegate;
    }

    /** One thread of the CPU: what the bundle's answers and measurements are of. */
    public static Options usual() {
        return new Options(1, Delegate.XNNPACK);
    }
}
