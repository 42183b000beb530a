package dev.tidemark.bench.qemu;

import java.util.regex.Pattern;

/** What the monitor's command {@code xp /Ngx} prints: addresses, and words of 64 bits in hex. */
final class MemoryDump {
  private static final Pattern WORD = Pattern.compile("(?<![0-9a-fx])0x([0-9a-f]{16})\\b");

  private MemoryDump() {}

  /** The words, in the order of their addresses. */
  static long[] words(String dump) {
    return WORD.matcher(dump)
        .results()
        .mapToLong(word -> Long.parseUnsignedLong(word.group(1), 16))
        .toArray();
  }
}
