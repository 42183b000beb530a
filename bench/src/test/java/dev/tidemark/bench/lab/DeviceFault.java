package dev.tidemark.bench.lab;

import dev.tidemark.bench.lab.FaultyClasses.Patch;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.stream.Stream;

/**
 * What can be done wrong when devices write a guest's memory, each as a patch of the sources; and,
 * beside them, what only looks as if it were wrong.
 */
public enum DeviceFault {
  NO_QUERY_BEFORE_AN_UNMAP(
      "iommufd",
      true,
      new Patch(
          Place.HWPT,
          """
                hwpt.getDirtyBitmap(iova, bytes, Pages.SIZE, NO_CLEAR, unmapScratch.segment(), bit >>> 3);
          """,
          "")),

  /** Marks are seen before the unmap: a round takes them, and the device writes once more. */
  MARKED_BETWEEN_QUERY_AND_UNMAP(
      "iommufd",
      true,
      new Patch(
          Place.DMA,
          Place.UNMAP,
          """
              if (answered && when == AskAt.BEFORE_UNMAP) {
                unmapScratch.mark(map, askedFirst, askedPages, bit);
                answered = false;
                placed = false;
              }
          """
              + Place.ROUND
              + Place.UNMAP)),

  /** The same round between them, but marked after the unmap, as it is. */
  A_ROUND_BETWEEN_QUERY_AND_UNMAP(
      "iommufd", false, new Patch(Place.DMA, Place.UNMAP, Place.ROUND + Place.UNMAP)),

  A_QUERY_OVER_A_HOLE(
      "iommufd",
      true,
      new Patch(
          Place.HWPT,
          """
              runs.reset(map, DmaRuns.Kind.SPANNING);
              while (runs.next()) {
          """,
          """
              runs.reset(map, DmaRuns.Kind.SPANNING);
              long from = -1;
              long to = 0;
              while (runs.next()) {
                from = from < 0 ? runs.iovaPage() : from;
                to = runs.iovaPage() + runs.pages();
              }
              if (from >= 0) {
                runs.reset(map, DmaRuns.Kind.SPANNING);
                runs.next();
                runs.nextPiece();
                askScattered(from, to - from);
              }
              runs.reset(map, DmaRuns.Kind.SPANNING);
              while (runs.next() && from < 0) {
          """)),

  ONE_PAGE_TABLE_LEFT_OUT(
      "iommufd",
      true,
      new Patch(
          Place.HWPT,
          """
            void ask() {
              if (!tracking) {
          """,
          """
            void ask() {
              Hwpt[] all = hwpts;
              hwpts = Arrays.copyOf(all, Math.min(all.length, 1));
              try {
                askSome();
              } finally {
                hwpts = all;
              }
            }

            private void askSome() {
              if (!tracking) {
          """)),

  /** The device's own fault. */
  MARKS_DROPPED(
      "dmalog",
      true,
      new Patch(
          Place.DEVICE,
          "      made.device.state(STATE_BYTES, STATE_SEED);\n",
          "      made.device.state(STATE_BYTES, STATE_SEED);\n      made.device.dropEvery(5);\n"),
      Place.NO_RESTART),

  A_REPORT_LEFT_OUT(
      "dmalog",
      true,
      new Patch(
          Place.LOGS,
          """
              for (VfioDevice device : devices) {
                device.dmaLoggingReport(
          """,
          """
              for (VfioDevice device : new VfioDevice[0]) {
                device.dmaLoggingReport(
          """),
      Place.NO_RESTART),

  /** In the last of the device's state, where the device itself has nothing to check. */
  A_STATE_THAT_DIFFERS(
      "dmalog",
      true,
      new Patch(
          "engine/src/main/java/dev/tidemark/engine/device/VfioStateInput.java",
          "      device.accept(piece);\n",
          """
                if (left == 56) {
                  piece.set(java.lang.foreign.ValueLayout.JAVA_LONG, 40, ~0L);
                }
                device.accept(piece);
          """)),

  A_RESTART_WITHOUT_MARKING(
      "dmalog",
      true,
      new Patch(
          Place.LOGS,
          Place.RESTART,
          """
                failure = null;
          """
              + Place.SLOW
              + """
                      stopAll(devices, devices.length, null);
                      enable();
                    }
                    space.map(iova, address, bytes, writable);
                """),
      Place.MANY_RESTARTS),

  A_SLOW_RESTART(
      "dmalog",
      false,
      new Patch(Place.LOGS, Place.RESTART, Place.SLOW + Place.RESTART),
      Place.MANY_RESTARTS),

  NOTHING_WRONG_BEHIND_TYPE1("type1", false),

  NOTHING_BEHIND_TYPE1(
      "type1",
      true,
      new Patch(
          Place.TYPE1,
          """
              try {
                if (!tracking) {
          """,
          """
              try {
                if (tracking) {
          """));

  /** Where it is, and what several of them need. */
  private static final class Place {
    private static final String SOURCES = "engine/src/main/java/dev/tidemark/engine/source/dma/";
    private static final String BENCH = "bench/src/main/java/dev/tidemark/bench/lab/";
    static final String DMA = SOURCES + "DmaSource.java";
    static final String HWPT = SOURCES + "HwptSource.java";
    static final String LOGS = SOURCES + "DeviceLogSource.java";
    static final String TYPE1 = SOURCES + "Type1Source.java";
    static final String DEVICE = BENCH + "DmaLogDevice.java";
    private static final String IOMMU = BENCH + "GuestIommu.java";

    static final String UNMAP =
        """
            if (!unmapped) {
              try {
                gone = unmapInKernel(iova, bytes);
        """;

    /** Lets a round take what is marked and send it, with the ledger open to it. */
    static final String ROUND =
        """
            if (ask && pages == 1) {
              cursor.resetPages(map, first, first + 1);
              cursor.next();
              dev.tidemark.engine.log.RamBlockLog taken = cursor.log();
              long rounds = taken.counters().harvests();
              long limit = System.nanoTime() + 1_000_000_000L;
              int holds = 0;
              try {
                while (true) {
                  map.checkLocked();
                  map.unlock();
                  holds++;
                }
              } catch (IllegalMonitorStateException e) {
                // It is open.
              }
              while (taken.counters().harvests() == rounds && System.nanoTime() < limit) {
                java.util.concurrent.locks.LockSupport.parkNanos(1_000_000);
              }
              java.util.concurrent.locks.LockSupport.parkNanos(100_000_000);
              while (holds-- > 0) {
                map.lock();
              }
            }
        """;

    static final String RESTART =
        """
              failure = null;
              restart();
            }
            space.map(iova, address, bytes, writable);
        """;

    /** Long enough for some writes that neither log has. */
    static final String SLOW =
        "      java.util.concurrent.locks.LockSupport.parkNanos(50_000_000);\n";

    static final Patch NO_RESTART =
        new Patch(IOMMU, "MOVES_A_FAR_ONE = 512;", "MOVES_A_FAR_ONE = Integer.MAX_VALUE;");
    static final Patch MANY_RESTARTS =
        new Patch(IOMMU, "MOVES_A_FAR_ONE = 512;", "MOVES_A_FAR_ONE = 32;");
  }

  private final String guest;
  private final boolean wrong;
  private final List<Patch> patches;

  DeviceFault(String guest, boolean wrong, Patch... patches) {
    this.guest = guest;
    this.wrong = wrong;
    this.patches = List.of(patches);
  }

  /** Which guest it is for. */
  public String guest() {
    return guest;
  }

  /** Whether a migration must notice it. */
  public boolean isWrong() {
    return wrong;
  }

  /** Where its classes are. */
  public Path folder() {
    return Path.of(
        System.getProperty("tidemark.root"),
        "bench/target/lab/faults",
        name().toLowerCase(Locale.ROOT));
  }

  /**
   * Compiles the classes of all of them: in the lab that would take minutes.
   *
   * @throws AssertionError if a patch does not fit the sources any more; the others are compiled
   */
  static void compileAll() throws IOException {
    AssertionError failure = null;
    for (DeviceFault fault : values()) {
      fault.clean();
      Files.createDirectories(fault.folder());
      try {
        FaultyClasses.compile(fault.patches, fault.folder());
      } catch (AssertionError e) {
        fault.clean();
        failure = new AssertionError(fault + ": " + e.getMessage(), failure);
      }
    }
    if (failure != null) {
      throw failure;
    }
  }

  private void clean() throws IOException {
    if (Files.exists(folder())) {
      try (Stream<Path> files = Files.walk(folder())) {
        files.sorted(Comparator.reverseOrder()).forEach(file -> file.toFile().delete());
      }
    }
  }
}
