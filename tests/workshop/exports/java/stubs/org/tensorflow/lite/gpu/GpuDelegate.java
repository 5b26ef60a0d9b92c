package org.tensorflow.lite.gpu;

/** As in LiteRT. */
public class GpuDelegate implements org.tensorflow.lite.Delegate {}
