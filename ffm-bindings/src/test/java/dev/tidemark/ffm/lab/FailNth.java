package dev.tidemark.ffm.lab;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.internal.Libc;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Has the kernel fail the n-th thing that can fail in a thread ({@code fail-nth} of {@code
 * Documentation/fault-injection}). Run the code once before: loading its classes must not be what
 * fails. Platform threads only.
 */
public final class FailNth {
  private static final String FILE = "/proc/thread-self/fail-nth";
  private static final Pattern CALL = Pattern.compile("\\b(?:IOMMU|VFIO)_[A-Z_0-9]+");

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

  /**
   * Fails each step of a call once: it must then say so, or have done its work, and work when it is
   * tried again. {@link #sweep(Runnable, Runnable, Runnable)} without a preparation.
   */
  public static void sweep(Runnable call, Runnable undo) {
    sweep(() -> {}, call, undo);
  }

  /**
   * Fails each step of a call once, and prints how many there were and which call told of them.
   *
   * @param prepare done before each round, without failures
   * @param call done with failures, and after a failure once more without
   * @param undo checks what a call that was done did, and brings back the state before
   * @throws AssertionError if the call cannot fail at all, or was not done although nothing failed
   */
  public static void sweep(Runnable prepare, Runnable call, Runnable undo) {
    prepare.run();
    call.run();
    undo.run();
    LinuxException[] failure = new LinuxException[1];
    Runnable attempt =
        () -> {
          failure[0] = null;
          try {
            call.run();
          } catch (LinuxException e) {
            failure[0] = e;
          }
        };
    Map<String, Integer> told = new TreeMap<>();
    int injected = 0;
    int failures = 0;
    // The first failure of all only loads the classes of the failing way.
    boolean failed = round(1, prepare, attempt, failure, call, undo);
    for (int nth = 1; failed; nth++) {
      if (nth == 1000) {
        throw new AssertionError("no end of steps that can fail");
      }
      failed = round(nth, prepare, attempt, failure, call, undo);
      injected += failed ? 1 : 0;
      failures += failure[0] == null ? 0 : 1;
      if (failed || failure[0] != null) {
        told.merge(failure[0] == null ? "nobody" : call(failure[0].getMessage()), 1, Integer::sum);
      }
    }
    if (failure[0] != null) {
      throw new AssertionError("nothing failed, yet the call did", failure[0]);
    }
    if (failures == 0) {
      throw new AssertionError("nothing could fail");
    }
    System.out.printf("FailNth: %s: %d failures injected, told of %s%n", caller(), injected, told);
  }

  private static String call(String message) {
    Matcher call = CALL.matcher(message);
    return call.find() ? call.group() : message;
  }

  private static String caller() {
    return StackWalker.getInstance(StackWalker.Option.RETAIN_CLASS_REFERENCE)
        .walk(
            frames ->
                frames
                    .filter(frame -> frame.getDeclaringClass() != FailNth.class)
                    .findFirst()
                    .map(
                        frame ->
                            frame.getDeclaringClass().getSimpleName() + "." + frame.getMethodName())
                    .orElseThrow());
  }

  private static boolean round(
      int nth,
      Runnable prepare,
      Runnable attempt,
      LinuxException[] failure,
      Runnable call,
      Runnable undo) {
    prepare.run();
    boolean failed = run(nth, attempt);
    if (failure[0] != null) {
      if (Errno.name(failure[0].errno()).startsWith("errno")) {
        throw new AssertionError("an error without a name", failure[0]);
      }
      call.run();
    }
    undo.run();
    return failed;
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
