package dev.tidemark.bench.fuzz;

import com.sun.management.ThreadMXBean;
import java.lang.management.ManagementFactory;

/** Runs what a fuzz target tries, within bounds of time and memory. */
public final class Watched {
  private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();

  /** Of processor time, so that a busy machine is no finding: some thousand times the usual. */
  private static final long MAX_NANOS = 1_000_000_000;

  /** What exceptions, sockets and reading /proc/self/maps take; a claimed description is more. */
  private static final long MAX_BYTES = 4 << 20;

  private static final long MAX_BYTES_PER_INPUT_BYTE = 256;

  private Watched() {}

  /**
   * Runs it on this thread, and once more if that was out of bounds: classes may have been loaded,
   * and the fuzzer's own part of them made.
   *
   * @param inputBytes what it may allocate for
   * @param call does the same each time
   * @throws AssertionError if it took a second, or allocated far more than its input, three times
   */
  public static void run(int inputBytes, Runnable call) {
    long maxBytes = MAX_BYTES + MAX_BYTES_PER_INPUT_BYTE * inputBytes;
    long nanos = 0;
    long bytes = 0;
    for (int i = 0; i < 3; i++) {
      nanos = THREADS.getCurrentThreadCpuTime();
      bytes = THREADS.getCurrentThreadAllocatedBytes();
      call.run();
      bytes = THREADS.getCurrentThreadAllocatedBytes() - bytes;
      nanos = THREADS.getCurrentThreadCpuTime() - nanos;
      if (nanos <= MAX_NANOS && bytes <= maxBytes) {
        return;
      }
    }
    throw new AssertionError(
        nanos + " ns and " + bytes + " bytes allocated for " + inputBytes + " bytes");
  }

  /** Checks that an error is one line that a terminal shows as it is. */
  public static void checkMessage(RuntimeException e) {
    String message = e.getMessage();
    if (message == null
        || message.length() > 4000
        || !message.codePoints().allMatch(Watched::isShown)) {
      throw new AssertionError("not a line to show", e);
    }
  }

  private static boolean isShown(int codePoint) {
    return switch (Character.getType(codePoint)) {
      case Character.CONTROL,
          Character.FORMAT,
          Character.SURROGATE,
          Character.PRIVATE_USE,
          Character.UNASSIGNED,
          Character.LINE_SEPARATOR,
          Character.PARAGRAPH_SEPARATOR ->
          false;
      default -> true;
    };
  }
}
