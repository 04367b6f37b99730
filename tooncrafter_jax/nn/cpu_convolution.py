"""3x3 convolutions on the CPU with fewer products: F(2x2, 3x3) of Lavin and Gray 2016 (arXiv:1509.09308, section 4.1).

A tile of 2x2 results needs 16 products a pair of channels instead of 36. The sums before and after them have weights of
1 and 1/2 alone, so that float32 results err about as much as those of the plain form. Many channels make the sums cheap
beside the products; with few of them nothing is gained. Only `nn.layers` calls this.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tooncrafter_jax.nn.cpu_gradients import use_cpu_gradients
from tooncrafter_jax.nn.cpu_loops import largest_divisor, one_by_one

MIN_CHANNELS = 256
"""Fewest channels of input and output: at 128 both forms take the same time."""
MIN_TILES = 512
"""Fewest tiles of all pictures: the kernel is transformed anew by every call."""
BLOCK_TILES = 640
"""Most tiles that are worked on at a time."""

_INPUT = (((0, 1), (2, -1)), ((1, 1), (2, 1)), ((2, 1), (1, -1)), ((1, 1), (3, -1)))
"""Which of a tile's four rows (columns) are summed with which signs (B of the paper, transposed)."""


def suits(x: Float[Array, "N H W C"], kernel: Float[Array, "3 3 C O"]) -> bool:
    """Whether `same_3x3` is the faster form for this, here."""
    count, height, width, channels = x.shape
    return (
        use_cpu_gradients(x, kernel.dtype)
        and min(channels, kernel.shape[-1]) >= MIN_CHANNELS
        and height % 2 == width % 2 == 0
        and count * height * width // 4 >= MIN_TILES
    )


@jax.custom_vjp
def same_3x3(x: Float[Array, "N H W C"], kernel: Float[Array, "3 3 C O"]) -> Float[Array, "N H W O"]:
    """A convolution with a padding of one zero; H and W even. Its gradient is that of the plain convolution."""
    return _in_tiles(x, kernel)


def _plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    sides = ((1, 1), (1, 1))
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), sides, dimension_numbers=("NHWC", "HWIO", "NHWC"))


same_3x3.defvjp(
    lambda x, kernel: (_in_tiles(x, kernel), (x, kernel)), lambda saved, of_y: jax.vjp(_plain, *saved)[1](of_y)
)


def _in_tiles(x: jax.Array, kernel: jax.Array) -> jax.Array:
    count, height, width, channels = x.shape
    pictures = largest_divisor(count, 4 * BLOCK_TILES // (height * width))
    rows = 2 * largest_divisor(height // 2, 2 * BLOCK_TILES // width)  # of a band
    bands = height // rows
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def one_block(index: Int[Array, ""]) -> Float[Array, "n h W O"]:
        first, top = index // bands * pictures, index % bands * rows
        block = jax.lax.dynamic_slice(padded, (first, top, 0, 0), (pictures, rows + 2, width + 2, channels))
        # Transformed here, or those of a whole network would be made before a loop over steps, and all held at once.
        block, own = jax.lax.optimization_barrier((block, kernel))
        return _block(block, [_of_three(row) for row in _of_three(own)])

    out = one_by_one(one_block, count // pictures * bands, x)
    out = out.reshape(count // pictures, bands, pictures, rows, width, kernel.shape[-1])
    return jnp.swapaxes(out, 1, 2).reshape(count, height, width, kernel.shape[-1])


def _block(padded: jax.Array, kernel: list[list[jax.Array]]) -> jax.Array:
    """Convolves pictures with their borders (n, h + 2, w + 2, C) to (n, h, w, O)."""
    pictures, height, width, channels = padded.shape
    shape = (pictures, (height - 2) // 2, (width - 2) // 2, kernel[0][0].shape[-1])

    def place(row: int, column: int) -> jax.Array:
        """The pixels at one place of all tiles."""
        ends = (pictures, height - 3 + row, width - 3 + column, channels)
        return jax.lax.slice(padded, (0, row, column, 0), ends, (1, 2, 2, 1))

    def product(i: int, j: int) -> jax.Array:
        parts = [(a * b) * place(row, column) for row, a in _INPUT[i] for column, b in _INPUT[j]]
        return jnp.reshape(sum(parts[1:], parts[0]), (-1, channels)) @ kernel[i][j]

    of_columns = [_of_four([product(i, j) for i in range(4)]) for j in range(4)]  # column, then row of the result
    places = [_of_four([of_columns[j][row] for j in range(4)]) for row in range(2)]
    rows = [jnp.stack([place.reshape(shape) for place in row], axis=3) for row in places]
    return jnp.stack(rows, axis=2).reshape(pictures, height - 2, width - 2, shape[-1])


def _of_three(taps: jax.Array | list[jax.Array]) -> list[jax.Array]:
    """The four numbers that stand for three taps of a kernel (G of the paper)."""
    first, second, third = taps
    return [first, (first + second + third) / 2, (first - second + third) / 2, third]


def _of_four(products: list[jax.Array]) -> list[jax.Array]:
    """Two results of four products (A of the paper, transposed)."""
    return [products[0] + products[1] + products[2], products[1] - products[2] - products[3]]
