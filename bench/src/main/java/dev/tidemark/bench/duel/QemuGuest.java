package dev.tidemark.bench.duel;

import dev.tidemark.bench.guest.BootImage;
import dev.tidemark.bench.qemu.QemuProcess;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** A QEMU with a guest of {@link BootImage}, or one that waits for it. */
final class QemuGuest implements AutoCloseable {
  private static final long FILL_NANOS = TimeUnit.MINUTES.toNanos(Match.LIMIT_MINUTES);
  private static final long POLL_MILLIS = 10;

  private final QemuProcess qemu;

  /**
   * Starts one.
   *
   * @param folder for its files, with the image
   * @param more arguments
   */
  QemuGuest(Path binary, Path folder, Path image, String name, long ramBytes, String... more) {
    // The emulator, as the guest needs a mode that KVM of a nested host may not have.
    List<String> arguments = new ArrayList<>(List.of("-accel", "tcg", "-no-reboot"));
    arguments.addAll(List.of("-machine", "pc,max-ram-below-4g=" + BootImage.LOW_RAM));
    arguments.addAll(List.of("-m", "size=" + (ramBytes >> 10) + "k"));
    arguments.addAll(List.of("-kernel", image.toString()));
    arguments.addAll(List.of(more));
    qemu = new QemuProcess(binary, folder, name, arguments);
  }

  QemuProcess qemu() {
    return qemu;
  }

  GuestStatus status() {
    return GuestStatus.of(qemu);
  }

  /** Waits until the guest has come through its memory once. */
  void awaitFilled() throws InterruptedException {
    long deadline = System.nanoTime() + FILL_NANOS;
    while (true) {
      GuestStatus status = status();
      if (status.generation() > 1) {
        return;
      }
      if (System.nanoTime() - deadline > 0) {
        throw new IllegalStateException("QEMU's guest does not get on: " + status);
      }
      Thread.sleep(POLL_MILLIS);
    }
  }

  /**
   * The longest stall that ended between two times, in ticks, to within a window at each end.
   *
   * @return -1 if that is longer ago than the guest remembers
   */
  long longestStall(long from, long to) {
    long first = from >> BootImage.WINDOW_SHIFT;
    long last = to >> BootImage.WINDOW_SHIFT;
    if (last - first >= BootImage.WINDOWS) {
      return -1;
    }
    long[] stalls = qemu.read(BootImage.STALLS, BootImage.WINDOWS);
    long longest = 0;
    for (long window = first; window <= last; window++) {
      longest = Math.max(longest, stalls[(int) (window % BootImage.WINDOWS)]);
    }
    return longest;
  }

  @Override
  public void close() {
    qemu.close();
  }
}
