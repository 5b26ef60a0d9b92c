package dev.tightrope;

/** What runs the model: ids of one text, its types (or null), to the numbers that the model gives. */
public interface Runner extends AutoCloseable {
    float[] run(int[] ids, int[] types);

    @Override
    void close();
}
