package org.tensorflow.lite.nnapi;

/** As in LiteRT. */
public class NnApiDelegate implements org.tensorflow.lite.Delegate {}
