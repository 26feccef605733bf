"""The import path of `load_recipe` and `Recipe` in version 0.2, for scripts that use it."""

from prunelora.run.recipe import Recipe as Recipe
from prunelora.run.recipe import load_recipe as load_recipe
