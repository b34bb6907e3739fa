"""Load the pair of files of the current folder with Keras alone; print what the models compute."""

import json
import sys

import keras
import numpy as np

generator = keras.models.load_model("gan_generator.h5")
discriminator = keras.models.load_model("gan_discriminateor.h5")
assert "demo_gan" not in sys.modules
noise = np.linspace(-1, 1, 20).reshape(5, 4)
signal = np.linspace(-1, 1, 5).reshape(5, 1)
outputs = [generator(noise), discriminator(signal)]
print(json.dumps([output.numpy().tolist() for output in outputs]))
