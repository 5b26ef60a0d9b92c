package dev.tightrope;

/**
 * Texts to vectors, or pairs of texts to scores. The model pools over tokens by itself; what is left to do here is the
 * tokenizer, the padding and, where the model leaves it, the scaling to length 1.
 */
public final class TextModel implements AutoCloseable {
    private final WordPiece tokenizer;
    private final Settings settings;
    private final Runner runner;

    public TextModel(WordPiece tokenizer, Settings settings, Runner runner) {
        this.tokenizer = tokenizer;
        this.settings = settings;
        this.runner = runner;
    }

    /** What the export says about the model. */
    public Settings settings() {
        return settings;
    }

    /** The vector of a text, of length 1, with the model's default prompt before it. */
    public float[] embed(String text) {
        return embedAsWritten(settings.defaultPrompt + text);
    }

    /** The vector of a text with one of the model's prompts before it. */
    public float[] embed(String text, String prompt) {
        return embedAsWritten(settings.prompt(prompt) + text);
    }

    private float[] embedAsWritten(String text) {
        require("embedding");
        int[] ids = tokenizer.encode(text, settings.maxTokens);
        float[] vector = runner.run(ids, settings.takesTypes ? new int[ids.length] : null);
        return settings.isNormalized ? vector : Vectors.unitLength(vector);
    }

    /** What a model that scores says of two texts: one number, or one for each label. */
    public float[] score(String first, String second) {
        require("scoring");
        WordPiece.Pair pair = tokenizer.encodePair(first, second, settings.maxTokens);
        return runner.run(pair.ids, settings.takesTypes ? pair.types : null);
    }

    private void require(String task) {
        if (!settings.task.equals(task)) {
            throw new IllegalStateException("The model is for " + settings.task + ", not for " + task + ".");
        }
    }

    @Override
    public void close() {
        runner.close();
    }
}
