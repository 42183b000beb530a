package dev.tidemark.bench.duel;

import dev.tidemark.bench.guest.BootImage;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** How fast the clock of QEMU's guests is: the guest cannot know, and has to be told. */
final class GuestClock {
  private static final long RAM = 8L << 20;
  private static final long APART_MILLIS = 1000;
  private static final int READS = 10;

  private GuestClock() {}

  /** Measures it with a small guest that writes as fast as it can, in two seconds or so. */
  static double ticksPerSecond(Path qemu, Path folder) throws InterruptedException {
    Path image = folder.resolve("clock.img");
    try {
      Files.write(image, BootImage.of(RAM, 0, 0));
      try (QemuGuest guest = new QemuGuest(qemu, folder, image, "clock", RAM)) {
        guest.awaitFilled();
        long[] first = newest(guest);
        Thread.sleep(APART_MILLIS);
        long[] second = newest(guest);
        return (second[1] - first[1]) * 1e9 / (second[0] - first[0]);
      } finally {
        Files.delete(image);
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The time here and the guest's, by the one of some readings that took the shortest. */
  private static long[] newest(QemuGuest guest) {
    long[] best = null;
    long shortest = Long.MAX_VALUE;
    for (int i = 0; i < READS; i++) {
      long before = System.nanoTime();
      long ticks = guest.status().ticks();
      long took = System.nanoTime() - before;
      if (took < shortest) {
        shortest = took;
        best = new long[] {before + took / 2, ticks};
      }
    }
    return best;
  }
}
