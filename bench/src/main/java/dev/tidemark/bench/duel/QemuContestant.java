package dev.tidemark.bench.duel;

import dev.tidemark.bench.guest.BootImage;
import dev.tidemark.bench.qemu.MigrationInfo;
import dev.tidemark.bench.qemu.QemuProcess;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Two new QEMUs, with a guest that does to its memory what Tidemark's does. */
final class QemuContestant implements Contestant {
  /** That of {@code migrate}. */
  private static final int DOWNTIME_LIMIT_MILLIS = 300;

  private static final long PACE_MILLIS = 1000;
  private static final long POLL_MILLIS = 2;

  private final Path binary;
  private final int channels;
  private final Match match;
  private final double ticksPerSecond;
  private final Scratch scratch;

  /**
   * @param channels 1 for QEMU's one stream, more for multifd
   * @param ticksPerSecond of the guest's clock
   * @param scratch for files
   */
  QemuContestant(Path binary, int channels, Match match, double ticksPerSecond, Scratch scratch) {
    this.binary = binary;
    this.channels = channels;
    this.match = match;
    this.ticksPerSecond = ticksPerSecond;
    this.scratch = scratch;
  }

  @Override
  public String name() {
    return channels == 1 ? "QEMU, one stream" : "QEMU, multifd " + channels;
  }

  @Override
  public Sample migrate() throws InterruptedException {
    double cpu = ChildrenCpu.seconds();
    Path image =
        scratch.write(
            "guest.img", BootImage.of(match.ramBytes(), match.pagesPerSecond(), ticksPerSecond));
    return migrate(image).put(Measure.WHOLE_CPU, ChildrenCpu.seconds() - cpu);
  }

  private Sample migrate(Path image) throws InterruptedException {
    long begin = System.nanoTime();
    try (QemuGuest source = guest("source", image)) {
      source.awaitFilled();
      long filled = System.nanoTime();
      GuestStatus early = source.status();
      Thread.sleep(PACE_MILLIS);
      GuestStatus before = source.status();
      long ready = System.nanoTime();
      try (QemuGuest destination =
          guest("destination", image, "-mem-prealloc", "-incoming", "defer")) {
        prepare(source.qemu());
        prepare(destination.qemu());
        destination.qemu().execute("migrate-incoming", Map.of("uri", "tcp:127.0.0.1:0"));
        int port = destination.qemu().incomingPort();
        Duration cpu = cpu(source, destination);
        GuestStatus start = source.status();
        source.qemu().execute("migrate", Map.of("uri", "tcp:127.0.0.1:" + port));
        MigrationInfo info = source.qemu().awaitMigrated(Duration.ofMinutes(Match.LIMIT_MINUTES));
        awaitRunning(destination.qemu());
        cpu = cpu(source, destination).minus(cpu);
        long end = System.nanoTime();
        GuestStatus stopped = source.status();
        GuestStatus arrived = destination.status();
        Thread.sleep(PACE_MILLIS);
        GuestStatus after = destination.status();
        long stall = source.longestStall(start.ticks(), stopped.ticks());
        return new Sample()
            .put(Measure.TOTAL, info.totalMillis())
            .put(Measure.DOWNTIME, info.downtimeMillis())
            .put(Measure.FIRST_PAGE, info.setupMillis())
            .put(Measure.BYTES, info.bytes() / 1e6)
            .put(
                Measure.ZERO_PAGES,
                info.zeroPages() < 0
                    ? Double.NaN
                    : 100.0 * info.zeroPages() / (info.zeroPages() + info.normalPages()))
            .put(Measure.CPU, (double) cpu.toNanos() / match.ramBytes())
            .put(Measure.WHOLE, (end - begin - (ready - filled)) / 1e9)
            .put(Measure.PAGES_BEFORE, before.pagesPerSecondSince(early, ticksPerSecond))
            .put(Measure.PAGES_DURING, stopped.pagesPerSecondSince(start, ticksPerSecond))
            .put(Measure.PAGES_AFTER, after.pagesPerSecondSince(arrived, ticksPerSecond))
            .put(Measure.STALL, stall < 0 ? Double.NaN : stall / ticksPerSecond * 1e3);
      }
    }
  }

  private QemuGuest guest(String name, Path image, String... more) {
    return new QemuGuest(binary, scratch.folder(), image, name, match.ramBytes(), more);
  }

  private void prepare(QemuProcess qemu) {
    Map<String, Object> parameters = new HashMap<>();
    // 0 is no limit.
    parameters.put("max-bandwidth", 0);
    parameters.put("downtime-limit", DOWNTIME_LIMIT_MILLIS);
    if (channels > 1) {
      qemu.execute(
          "migrate-set-capabilities",
          Map.of("capabilities", List.of(Map.of("capability", "multifd", "state", true))));
      parameters.put("multifd-channels", channels);
    }
    qemu.execute("migrate-set-parameters", parameters);
  }

  private static Duration cpu(QemuGuest source, QemuGuest destination) {
    return source.qemu().cpu().plus(destination.qemu().cpu());
  }

  private static void awaitRunning(QemuProcess qemu) throws InterruptedException {
    while (!qemu.execute("query-status").getAsJsonObject().get("running").getAsBoolean()) {
      Thread.sleep(POLL_MILLIS);
    }
  }
}
