package org.tensorflow.lite;

import java.nio.ByteBuffer;
import java.util.Map;

/** What the export calls of LiteRT, by its documentation; for the compiler only. */
public final class Interpreter implements AutoCloseable {
    public static class Options {
        public Options setNumThreads(int count) {
            return this;
        }

        public Options setUseXNNPACK(boolean use) {
            return this;
        }

        public Options addDelegate(Delegate delegate) {
            return this;
        }
    }

    public Interpreter(ByteBuffer model, Options options) {}

    public void runSignature(Map<String, Object> inputs, Map<String, Object> outputs, String signature) {}

    @Override
    public void close() {}
}
