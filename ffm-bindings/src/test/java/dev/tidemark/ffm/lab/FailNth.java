package dev.tidemark.ffm.lab;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.internal.Libc;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * Has the kernel fail the n-th thing that can fail in a thread ({@code fail-nth} of {@code
 * Documentation/fault-injection}). Run the code once before: loading its classes must not be what
 * fails. Platform threads only.
 */
public final class FailNth {
  private static final String FILE = "/proc/thread-self/fail-nth";

  private FailNth() {}

  /**
   * Runs some code with its n-th fallible step failing.
   *
   * @param nth from 1
   * @return whether the code came as far as that
   */
  public static boolean run(int nth, Runnable code) {
    includeAllocations();
    // Opened before, because opening could be what fails.
    try (Arena arena = Arena.ofConfined();
        Fd write = Fd.open(FILE, Fd.O_RDWR);
        Fd read = Fd.open(FILE, Fd.O_RDONLY)) {
      MemorySegment on = text(arena, Integer.toString(nth));
      MemorySegment off = text(arena, "0");
      MemorySegment left = arena.allocate(16);
      int writeNumber = write.acquire();
      int readNumber = read.acquire();
      try {
        Libc.check(Libc.write(writeNumber, on, on.byteSize()), "write(fail-nth)");
        long bytes;
        try {
          code.run();
        } finally {
          bytes = Libc.read(readNumber, left, left.byteSize());
          while (Libc.write(writeNumber, off, off.byteSize()) < 0) {
            // Even this can be made to fail, once.
          }
        }
        Libc.check(bytes, "read(fail-nth)");
        byte[] answer = left.asSlice(0, bytes).toArray(JAVA_BYTE);
        return new String(answer, StandardCharsets.US_ASCII).strip().equals("0");
      } finally {
        read.release();
        write.release();
      }
    }
  }

  private static MemorySegment text(Arena arena, String text) {
    return arena.allocateFrom(text).asSlice(0, text.length());
  }

  private static void includeAllocations() {
    try {
      Files.writeString(Path.of("/sys/kernel/debug/failslab/ignore-gfp-wait"), "N");
      Files.writeString(Path.of("/sys/kernel/debug/failslab/verbose"), "0");
      Files.writeString(Path.of("/sys/kernel/debug/fail_iommufd/verbose"), "0");
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
