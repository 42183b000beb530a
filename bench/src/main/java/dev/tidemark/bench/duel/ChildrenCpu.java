package dev.tidemark.bench.duel;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** CPU time of the processes that this one started and that have ended. */
final class ChildrenCpu {
  /** USER_HZ: the unit of the kernel's answer, on each architecture that Linux runs Java on. */
  private static final double TICKS_PER_SECOND = 100;

  private ChildrenCpu() {}

  /** In seconds, with what their own children used that they waited for. */
  static double seconds() {
    try {
      return seconds(Files.readString(Path.of("/proc/self/stat")));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The fields cutime and cstime of {@code proc_pid_stat(5)}. */
  static double seconds(String stat) {
    // The second field, in parentheses, may hold anything.
    String[] fields = stat.substring(stat.lastIndexOf(')') + 2).strip().split(" ");
    return (Long.parseLong(fields[13]) + Long.parseLong(fields[14])) / TICKS_PER_SECOND;
  }
}
