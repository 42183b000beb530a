package dev.tidemark.bench.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** What the host has, and can still give. */
final class HostMemory {
  private HostMemory() {}

  /**
   * Refuses a guest that would not fit, before the kernel has to end somebody.
   *
   * @throws IllegalStateException if there is less memory than that
   */
  static void require(long bytes) {
    long available = available();
    if (bytes > available) {
      throw new IllegalStateException(
          "%s of RAM are not to be had: %s are available on this host"
              .formatted(Units.size(bytes), Units.size(available)));
    }
  }

  private static long available() {
    return meminfo("MemAvailable:");
  }

  /** All that the host has, in bytes: no guest on it has more. */
  static long total() {
    return meminfo("MemTotal:");
  }

  private static long meminfo(String field) {
    try {
      for (String line : Files.readAllLines(Path.of("/proc/meminfo"))) {
        if (line.startsWith(field)) {
          return Long.parseLong(line.replaceAll("\\D", "")) << 10;
        }
      }
    } catch (IOException | NumberFormatException e) {
      // As if it said nothing.
    }
    return Long.MAX_VALUE;
  }
}
