package dev.tidemark.ffm;

import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.OptionalInt;

/** Asks the kernel about the terminal that a standard stream may be. */
public final class Terminal {
  /** The standard output's descriptor. */
  public static final int STDOUT = 1;

  /** The standard error's descriptor. */
  public static final int STDERR = 2;

  private static final long TIOCGWINSZ = 0x5413;

  /** {@code struct winsize}: rows, columns, and their pixels. */
  private static final int WINSIZE_BYTES = 8;

  private static final int WS_COL = 2;

  private Terminal() {}

  /**
   * How wide a terminal is now.
   *
   * @param descriptor of an open file
   * @return its columns, 0 if it does not know them; empty if it is no terminal
   */
  public static OptionalInt columns(int descriptor) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment size = arena.allocate(WINSIZE_BYTES, 2);
      return Libc.ioctl(descriptor, TIOCGWINSZ, size) == 0
          ? OptionalInt.of(Short.toUnsignedInt(size.get(JAVA_SHORT, WS_COL)))
          : OptionalInt.empty();
    }
  }
}
