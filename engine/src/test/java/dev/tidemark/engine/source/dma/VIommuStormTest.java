package dev.tidemark.engine.source.dma;

import static dev.tidemark.engine.source.dma.LabDma.PAGE;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.engine.log.LogCounters;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.MockIommu;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestReporter;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * A guest behind a vIOMMU maps, has its device write and unmaps, as fast as it can, while its
 * memory is migrated round after round; in the lab. A page whose last write was never sent is lost.
 */
@Tag("lab-mock")
class VIommuStormTest {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());

  /** Of all combinations together. */
  private static final long PAIRS = Long.getLong("tidemark.storm.pairs", 200_000);

  private static final int COMBINATIONS = 6;
  private static final int PAGES = 4096;
  private static final int RING = 256;
  private static final int SWITCHES = 20;
  private static final int ADDRESS_BITS = 48;

  static {
    System.out.println("VIommuStormTest: -Dtidemark.seed=" + SEED);
  }

  /** Who tracks, and what an unmap does. */
  enum Tracking {
    QUERY,
    STRICT,
    DEVICE
  }

  /** A guest's memory, its source and its device, whoever tracks. */
  private record Rig(
      Runnable closer,
      DirtyTracker tracker,
      DmaSource source,
      VIommuGuest.Dma dma,
      long translated,
      long identity)
      implements AutoCloseable {

    static Rig of(Tracking tracking) {
      if (tracking == Tracking.DEVICE) {
        return of(new LogLab(1, DeviceLogSource.REPORT_WAITS, PAGES));
      }
      LabDma lab = new LabDma(UnmapPolicy.valueOf(tracking.name()), PAGES);
      Hwpt hwpt = lab.hwpt();
      lab.source.add(hwpt);
      MockIommu.Access access = lab.mock.access(lab.ioas);
      Arena arena = Arena.ofShared();
      MemorySegment eight = arena.allocate(8);
      VIommuGuest.Dma dma =
          (iova, value) -> {
            eight.set(JAVA_LONG, 0, value);
            access.write(iova, eight);
            assertTrue(lab.mock.dirty(hwpt, iova), "the device writes what is mapped");
          };
      long last = (MockIommu.MOCK_APERTURE_LAST + 1) / PAGE;
      Runnable closer =
          () -> {
            access.close();
            arena.close();
            lab.close();
          };
      return new Rig(closer, lab.tracker, lab.source, dma, last - 2 * RING, LabDma.BASE);
    }

    static Rig of(LogLab lab) {
      lab.source.expectVIommu(ADDRESS_BITS);
      // As a guest's kernel does: from the last address down, and untranslated from the first up.
      long last = (1L << ADDRESS_BITS) / PAGE;
      DmaDevice device = lab.devices.getFirst();
      return new Rig(lab::close, lab.tracker, lab.source, device::write, last - 2 * RING, 0);
    }

    RamBlockLog log() {
      return tracker.logs().getFirst();
    }

    @Override
    public void close() {
      closer.run();
    }
  }

  /** The other side: what it has of each page. */
  private static final class Destination {
    private final long[] has = new long[PAGES];
    private long pages;

    void receive(RamBlockLog log) {
      MemorySegment memory = log.block().memory();
      RunCursor runs = log.epoch().runs();
      for (int found = runs.batch(); found > 0; found = runs.batch()) {
        for (int run = 0; run < found; run++) {
          long end = runs.start(run) + runs.length(run);
          for (long page = runs.start(run); page < end; page++) {
            has[(int) page] = memory.get(JAVA_LONG, page * PAGE);
            pages++;
          }
        }
      }
    }
  }

  private record Storm(VIommuGuest guest, long lost, String line) {}

  private static Storm storm(Rig rig, VIommuGuest.Mode mode, long pairs, String name)
      throws InterruptedException {
    DirtyTracker tracker = rig.tracker;
    RamBlockLog log = rig.log();
    VIommuGuest guest =
        new VIommuGuest(rig.source, log, mode, rig.dma, RING, rig.translated, rig.identity, SEED);
    guest.boot();
    tracker.start();
    AtomicReference<Throwable> failure = new AtomicReference<>();
    Thread running =
        Thread.ofPlatform()
            .name("guest")
            .uncaughtExceptionHandler((_, e) -> failure.set(e))
            .unstarted(() -> run(guest, pairs));
    Destination destination = new Destination();
    LogCounters before = log.counters();
    long begin = System.nanoTime();
    long syncs = 0;
    long syncNanos = 0;
    long mappings = 0;
    running.start();
    while (running.isAlive()) {
      mappings += rig.source.map().mappings();
      long start = System.nanoTime();
      tracker.sync();
      syncNanos += System.nanoTime() - start;
      syncs++;
      tracker.harvest();
      destination.receive(log);
      tracker.commit();
      // As a network takes its time. The ledger's lock is not a fair one.
      Thread.sleep(1);
    }
    running.join();
    if (failure.get() != null) {
      throw new AssertionError("the guest failed, seed " + SEED, failure.get());
    }
    long nanos = System.nanoTime() - begin;
    long calls = log.counters().since(before).queries();
    tracker.lastSync();
    tracker.harvest();
    destination.receive(log);
    tracker.commit();
    long lost = 0;
    for (int page = 0; page < PAGES; page++) {
      assertEquals(
          guest.lastWritten(page),
          log.block().memory().get(JAVA_LONG, page * PAGE),
          "the device's last write is there");
      lost += destination.has[page] == guest.lastWritten(page) ? 0 : 1;
    }
    String line =
        ("%s, guest %s: %d pairs, %d domain switches, %d DMA writes in %.1f s; %d syncs over %d"
                + " mappings on average: %.1f calls and %.3f ms each; %d pages sent, %d lost")
            .formatted(
                name,
                mode,
                guest.pairs(),
                guest.switches(),
                guest.writes(),
                nanos / 1e9,
                syncs,
                mappings / syncs,
                (double) calls / syncs,
                syncNanos / 1e6 / syncs,
                destination.pages,
                lost);
    return new Storm(guest, lost, line);
  }

  private static void run(VIommuGuest guest, long pairs) {
    for (int part = 1; part <= SWITCHES / 2; part++) {
      while (guest.pairs() < pairs * part / (SWITCHES / 2)) {
        guest.transfer();
      }
      guest.switchDomain();
      for (int i = 0; i < 50; i++) {
        guest.writeUntranslated();
      }
      guest.switchDomain();
    }
  }

  @ParameterizedTest
  @CsvSource({
    "QUERY, STRICT",
    "QUERY, LAZY",
    "STRICT, STRICT",
    "STRICT, LAZY",
    "DEVICE, STRICT",
    "DEVICE, LAZY"
  })
  void noPageIsLost(Tracking tracking, VIommuGuest.Mode mode, TestReporter reporter)
      throws InterruptedException {
    long pairs = (PAIRS + COMBINATIONS - 1) / COMBINATIONS;
    try (Rig rig = Rig.of(tracking)) {
      Storm storm = storm(rig, mode, pairs, "tracking " + tracking);
      System.out.println("VIommuStormTest: " + storm.line);
      reporter.publishEntry("vIOMMU storm", storm.line);
      assertEquals(0, storm.lost, "seed " + SEED);
      assertEquals(0, rig.tracker.failures(), () -> "" + rig.tracker.lastFailure());
      assertTrue(storm.guest.pairs() >= pairs);
      assertEquals(SWITCHES, storm.guest.switches());
      if (rig.source instanceof DeviceLogSource logs) {
        assertEquals(0, logs.replans(), "all that the guest maps was planned for");
        assertEquals(Optional.empty(), logs.refusal());
      }
    }
  }

  /** The control: marks that a device drops are pages that are lost. */
  @Test
  void aDeviceThatDropsMarksIsNoticed() throws InterruptedException {
    LogLab lab = new LogLab(1, DeviceLogSource.REPORT_WAITS, PAGES);
    try (Rig rig = Rig.of(lab)) {
      lab.devices.getFirst().dropEvery(20);
      Storm storm = storm(rig, VIommuGuest.Mode.STRICT, 2000, "every 20th mark dropped");
      System.out.println("VIommuStormTest: " + storm.line);
      assertTrue(storm.lost > 0, "seed " + SEED);
    }
  }

  private interface OneMapping {
    void ask(long iova, MemorySegment bitmap);
  }

  /** What a sync costs beside a call for each mapping, which is what QEMU does. */
  @Test
  void aSyncAsksForManyMappingsInOneCall(TestReporter reporter) {
    StringBuilder table =
        new StringBuilder(
            "tracker | mappings | calls a sync | ms a sync | one each: calls | one each: ms\n");
    for (int mappings : new int[] {256, 2048, 16384}) {
      try (LabDma lab = new LabDma(UnmapPolicy.STRICT, mappings)) {
        Hwpt hwpt = lab.hwpt();
        lab.source.add(hwpt);
        compare(
            "page table",
            table,
            lab.tracker,
            lab.source,
            mappings,
            LabDma.BASE,
            iova -> assertTrue(lab.mock.dirty(hwpt, iova)),
            (iova, bitmap) -> hwpt.getDirtyBitmap(iova, PAGE, PAGE, 0, bitmap, 0));
      }
      try (LogLab lab = new LogLab(1, DeviceLogSource.REPORT_WAITS, mappings)) {
        lab.source.expectVIommu(ADDRESS_BITS);
        DmaDevice device = lab.devices.getFirst();
        compare(
            "device log",
            table,
            lab.tracker,
            lab.source,
            mappings,
            LogLab.BASE,
            iova -> device.write(iova, iova),
            (iova, bitmap) -> device.vfio().dmaLoggingReport(iova, PAGE, PAGE, bitmap));
      }
    }
    reporter.publishEntry("vIOMMU sync", table.toString());
    System.out.println("VIommuStormTest: " + table.toString().replace("\n", "; "));
  }

  private interface Write {
    void at(long iova);
  }

  private static void compare(
      String name,
      StringBuilder table,
      DirtyTracker tracker,
      DmaSource source,
      int mappings,
      long first,
      Write write,
      OneMapping one) {
    var random = new SplittableRandom(SEED);
    RamBlockLog log = tracker.logs().getFirst();
    List<Integer> pages = new ArrayList<>(IntStream.range(0, mappings).boxed().toList());
    Collections.shuffle(pages, new Random(SEED));
    for (int i = 0; i < mappings; i++) {
      source.map((first + i) * PAGE, PAGE, log, pages.get(i), true);
    }
    tracker.start();
    tracker.harvest();
    tracker.commit();
    long together = Long.MAX_VALUE;
    long apart = Long.MAX_VALUE;
    long calls = 0;
    try (Mapping bitmap = Mapping.guarded(64)) {
      for (int round = 0; round < 3; round++) {
        BitSet dirty = new BitSet();
        for (int i = 0; i < mappings / 16; i++) {
          dirty.set(random.nextInt(mappings));
        }
        dirty.stream().forEach(i -> write.at((first + i) * PAGE));
        LogCounters before = log.counters();
        long start = System.nanoTime();
        tracker.sync();
        together = Math.min(together, System.nanoTime() - start);
        calls = log.counters().since(before).queries();
        assertEquals(dirty.cardinality(), tracker.harvest());
        tracker.commit();
        dirty.stream().forEach(i -> write.at((first + i) * PAGE));
        MemorySegment answer = bitmap.segment();
        BitSet found = new BitSet();
        start = System.nanoTime();
        for (int i = 0; i < mappings; i++) {
          one.ask((first + i) * PAGE, answer);
          if (answer.get(JAVA_LONG, 0) != 0) {
            found.set(i);
            answer.set(JAVA_LONG, 0, 0);
          }
        }
        apart = Math.min(apart, System.nanoTime() - start);
        assertEquals(dirty, found);
      }
    }
    assertTrue(calls * 100 < mappings, calls + " calls for " + mappings + " mappings");
    table.append(
        "%s | %d | %d | %.3f | %d | %.3f%n"
            .formatted(name, mappings, calls, together / 1e6, mappings, apart / 1e6));
  }
}
