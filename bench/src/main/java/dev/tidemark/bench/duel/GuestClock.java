package dev.tidemark.bench.duel;

import dev.tidemark.bench.guest.BootImage;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;

/** How fast the clock of QEMU's guests is: the guest cannot know, and has to be told. */
final class GuestClock {
  private static final long RAM = 8L << 20;
  private static final long APART_MILLIS = 1000;
  private static final int READS = 20;
  private static final long READS_APART_MILLIS = 10;

  private GuestClock() {}

  /** Measures it with a small guest that writes as fast as it can, in two seconds or so. */
  static double ticksPerSecond(Path qemu, Scratch scratch) throws InterruptedException {
    Path image = scratch.write("clock.img", BootImage.of(RAM, 0, 0));
    try (QemuGuest guest = new QemuGuest(qemu, scratch.folder(), image, "clock", RAM)) {
      guest.awaitFilled();
      List<Reading> early = readings(guest);
      Thread.sleep(APART_MILLIS);
      List<Reading> late = readings(guest);
      double nearly = early.getFirst().rateUntil(late.getFirst());
      return newest(early, nearly).rateUntil(newest(late, nearly));
    }
  }

  /** The guest's clock when it last noted it, and a time here after that was read. */
  private record Reading(long nanos, long ticks) {
    double rateUntil(Reading later) {
      return (later.ticks - ticks) * 1e9 / (later.nanos - nanos);
    }
  }

  private static List<Reading> readings(QemuGuest guest) throws InterruptedException {
    List<Reading> readings = new ArrayList<>();
    for (int i = 0; i < READS; i++) {
      long ticks = guest.status().ticks();
      // After it, so that a reading is never too new.
      readings.add(new Reading(System.nanoTime(), ticks));
      Thread.sleep(READS_APART_MILLIS);
    }
    return readings;
  }

  /** The one least out of date: a guest that gets no processor notes nothing. */
  private static Reading newest(List<Reading> readings, double ticksPerSecond) {
    return Collections.max(
        readings,
        Comparator.comparingDouble(
            reading ->
                reading.ticks
                    - ticksPerSecond * 1e-9 * (reading.nanos - readings.getFirst().nanos)));
  }
}
