package dev.tightrope;

import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import org.tensorflow.lite.Delegate;
import org.tensorflow.lite.Interpreter;
import org.tensorflow.lite.gpu.GpuDelegate;
import org.tensorflow.lite.nnapi.NnApiDelegate;

/** The model by LiteRT: one signature for each of a few lengths. Not safe for use from several threads at once. */
public final class LiteRtRunner implements Runner {
    private final Settings settings;
    private final Delegate delegate;
    private final Interpreter interpreter;

    /** Opens the model, which stays mapped. */
    public LiteRtRunner(ByteBuffer model, Settings settings, Options options) {
        this.settings = settings;
        Interpreter.Options wanted = new Interpreter.Options();
        wanted.setNumThreads(options.threads);
        wanted.setUseXNNPACK(options.delegate == Options.Delegate.XNNPACK);
        delegate = made(options.delegate);
        if (delegate != null) {
            wanted.addDelegate(delegate);
        }
        interpreter = new Interpreter(model, wanted);
    }

    private static Delegate made(Options.Delegate wanted) {
        switch (wanted) {
            case NNAPI:
                return new NnApiDelegate();
            case GPU:
                return new GpuDelegate();
            default:
                return null;
        }
    }

    @Override
    public float[] run(int[] ids, int[] types) {
        int length = settings.lengthFor(ids.length);
        int[][] padded = new int[1][length];
        int[][] mask = new int[1][length];
        System.arraycopy(ids, 0, padded[0], 0, ids.length);
        Arrays.fill(mask[0], 0, ids.length, 1);
        Map<String, Object> inputs = new HashMap<>();
        inputs.put("input_ids", padded);
        inputs.put("attention_mask", mask);
        if (types != null) {
            int[][] paddedTypes = new int[1][length];
            System.arraycopy(types, 0, paddedTypes[0], 0, types.length);
            inputs.put("token_type_ids", paddedTypes);
        }
        float[][] answer = new float[1][settings.width];
        Map<String, Object> outputs = new HashMap<>();
        outputs.put("@OUTPUT@", answer);
        interpreter.runSignature(inputs, outputs, "length_" + length);
        return answer[0];
    }

    @Override
    public void close() {
        interpreter.close();
        if (delegate != null) {
            delegate.close();
        }
    }
}
