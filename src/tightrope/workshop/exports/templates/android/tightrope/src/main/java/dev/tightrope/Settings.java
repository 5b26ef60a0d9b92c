package dev.tightrope;

import java.io.IOException;
import java.io.InputStream;
import java.util.Properties;

/** What the export says about the model: {@code bundle.properties}. */
public final class Settings {
    public final String digest;
    public final String task;
    public final int width;
    /** Tokens of the longest text that the model reads, special ones included. */
    public final int maxTokens;
    /** How far an answer on this device may be from the recorded one: least cosine, or largest difference of a score. */
    public final double tolerance;
    public final int[] lengths;
    public final boolean takesTypes;
    public final boolean isNormalized;
    public final String defaultPrompt;
    private final Properties properties = new Properties();

    /** Reads the file. */
    public Settings(InputStream stream) throws IOException {
        properties.load(stream);
        digest = properties.getProperty("digest");
        task = properties.getProperty("task");
        width = Integer.parseInt(properties.getProperty("width"));
        maxTokens = Integer.parseInt(properties.getProperty("max_tokens"));
        tolerance = Double.parseDouble(properties.getProperty("tolerance"));
        String[] parts = properties.getProperty("lengths").split(",");
        lengths = new int[parts.length];
        for (int i = 0; i < parts.length; i++) {
            lengths[i] = Integer.parseInt(parts[i]);
        }
        takesTypes = Boolean.parseBoolean(properties.getProperty("types"));
        isNormalized = Boolean.parseBoolean(properties.getProperty("normalized"));
        defaultPrompt = properties.getProperty("default_prompt", "");
    }

    /** The text that a prompt puts before the input. */
    public String prompt(String name) {
        String text = properties.getProperty("prompt." + name);
        if (text == null) {
            throw new IllegalArgumentException("The model has no prompt " + name + ".");
        }
        return text;
    }

    /** The shortest length of the model's that holds so many tokens. */
    public int lengthFor(int tokens) {
        for (int length : lengths) {
            if (length >= tokens) {
                return length;
            }
        }
        throw new IllegalArgumentException(tokens + " tokens are more than the model reads: " + maxTokens + ".");
    }
}
