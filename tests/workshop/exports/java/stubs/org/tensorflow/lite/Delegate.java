package org.tensorflow.lite;

/** As in LiteRT. */
public interface Delegate extends AutoCloseable {
    @Override
    default void close() {}
}
