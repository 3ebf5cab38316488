"""A trained model that leaves: exported files, and predictions from them or from a checkpoint.

    passl-export -c CONFIG          Paddle's inference format and ONNX, compared with the live model
    passl-infer --model FOLDER ...  top-k of images
    passl.load_model(PATH)          the same from Python
"""
