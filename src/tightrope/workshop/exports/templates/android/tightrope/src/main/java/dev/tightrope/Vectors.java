package dev.tightrope;

/** Arithmetic on vectors. */
public final class Vectors {
    private Vectors() {}

    /** Scales a vector to length 1, in place, and returns it; one of zeros stays as it is. */
    public static float[] unitLength(float[] vector) {
        double squares = 0;
        for (float value : vector) {
            squares += (double) value * value;
        }
        float length = (float) Math.max(Math.sqrt(squares), 1e-12);
        for (int i = 0; i < vector.length; i++) {
            vector[i] /= length;
        }
        return vector;
    }

    /** The cosine of the angle between two vectors of the same width. */
    public static double cosine(float[] a, float[] b) {
        double product = 0;
        double squaresOfA = 0;
        double squaresOfB = 0;
        for (int i = 0; i < a.length; i++) {
            product += (double) a[i] * b[i];
            squaresOfA += (double) a[i] * a[i];
            squaresOfB += (double) b[i] * b[i];
        }
        return product / Math.max(Math.sqrt(squaresOfA) * Math.sqrt(squaresOfB), 1e-24);
    }
}
