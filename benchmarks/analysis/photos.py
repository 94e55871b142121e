"""Photos that may be passed on, which libraries bring with them, for figures that show photos.

Images of the data sets that are measured on may not be passed on: figures that show photos show these.
"""

from typing import NamedTuple

from PIL import Image


class Photo(NamedTuple):
    """A sample photo.

    Attributes:
        library: the library that brings it.
        name: what the library calls it.
        shown: what it shows, as ImageNet's classes are called; None if none of them fits.
        terms: who took it, and its license.
    """

    library: str
    name: str
    shown: str | None
    terms: str

    def load(self) -> Image.Image:
        """The photo, from the installed library."""
        if self.library == "scikit-learn":
            from sklearn.datasets import load_sample_image

            return Image.fromarray(load_sample_image(self.name))
        import skimage.data  # imagecorruptions, of the extra analysis, brings it

        return Image.fromarray(getattr(skimage.data, self.name)())


TEMPLE = Photo("scikit-learn", "china.jpg", None, "danielbuechele on Flickr, CC BY 2.0")
PHOTOS = (
    Photo("scikit-image", "chelsea", "tabby", "Stéfan van der Walt, CC0"),
    Photo("scikit-image", "coffee", "espresso", "Rachel Michetti, CC0"),
    TEMPLE,
    Photo("scikit-learn", "flower.jpg", None, "vultilion on Flickr, CC BY 2.0"),
    Photo("scikit-image", "rocket", None, "SpaceX, public domain"),
)
