package dev.tidemark.bench.ratios;

import dev.tidemark.bench.hot.BitmapInput;
import dev.tidemark.bench.hot.DmaMapPath;
import dev.tidemark.bench.hot.FirstSync;
import dev.tidemark.bench.hot.HarvestPath;
import dev.tidemark.bench.hot.IoctlPath;
import dev.tidemark.bench.hot.KvmLogPath;
import dev.tidemark.bench.hot.MarksPath;
import dev.tidemark.bench.hot.MergePath;
import dev.tidemark.bench.hot.PagemapPath;
import dev.tidemark.bench.hot.QemuPair;
import dev.tidemark.bench.hot.ScatterPath;
import dev.tidemark.bench.hot.SyncPath;
import dev.tidemark.bench.hot.TransferPath;
import dev.tidemark.bench.ratios.Contest.Side;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.function.Consumer;
import java.util.function.LongSupplier;

/**
 * All contests, path by path; what each needs is there only while it is measured.
 *
 * <p>Equal code differs by 0.93 to 1.05 from run to run on the machine that the targets were set
 * on, so 0.93 stands for "as fast as".
 */
public final class Suite {
  private static final long TEN_SECONDS = 10_000_000_000L;
  private static final double AS_FAST = 0.93;
  private static final long KIB = 1024;
  private static final long MIB = 1024 * KIB;
  private static final long GIB = 1024 * MIB;
  private static final long TIB = 1024 * GIB;

  private final boolean quick;
  private final Interleaved measure;
  private final Consumer<Outcome> results;

  /**
   * @param quick fewer sizes and densities
   * @param measure how they are measured
   * @param results told of each outcome as it comes
   */
  public Suite(boolean quick, Interleaved measure, Consumer<Outcome> results) {
    this.quick = quick;
    this.measure = measure;
    this.results = results;
  }

  /** Measures all contests. */
  public void run() {
    merge();
    shiftedMerge();
    harvest();
    sync();
    cardinality();
    scatter();
    ioctl();
    dmaMap();
    marks();
    pagemap();
    kvmLog();
    firstSync();
    if (!quick) {
      widths();
      transfer();
    }
  }

  private static Side side(LongSupplier job) {
    return new Side(null, job, 1);
  }

  private static Side side(Runnable prepare, LongSupplier job) {
    return new Side(prepare, job, 1);
  }

  private static String size(long bytes) {
    return bytes >= TIB
        ? bytes / TIB + " TiB"
        : bytes >= GIB
            ? bytes / GIB + " GiB"
            : bytes >= MIB ? bytes / MIB + " MiB" : bytes / KIB + " KiB";
  }

  private List<BitmapInput> inputs(double[] scattered, double[] clustered) {
    List<BitmapInput> inputs = new ArrayList<>();
    for (double density : scattered) {
      inputs.add(new BitmapInput(density, false));
    }
    for (double density : clustered) {
      inputs.add(new BitmapInput(density, true));
    }
    return inputs;
  }

  private void merge() {
    long[] sizes = quick ? new long[] {512 * KIB} : new long[] {32 * KIB, 512 * KIB, 32 * MIB};
    double[] all = {0, 0.0001, 0.001, 0.01, 0.1, 1};
    double[] judgedOnes = {0.001, 0.01, 1};
    for (long bytes : sizes) {
      double[] densities = quick ? new double[] {0.01} : bytes == 512 * KIB ? all : judgedOnes;
      for (BitmapInput input : inputs(densities, quick ? new double[0] : new double[] {0.01})) {
        boolean judged = input.density() >= 0.001 && !input.clustered();
        double same = judged && input.density() != 0.1 ? AS_FAST : 0;
        try (MergePath path = new MergePath(bytes, input)) {
          String size = size(bytes);
          Side merge = side(path::orCount);
          put("merge", size, input, "C, same algorithm", same, merge, side(path::sameOrCount));
          put("merge", size, input, "C, plain loop", 0, merge, side(path::plainOrCount));
          put("merge", size, input, "scalar twin", 0, merge, side(path::scalarOrCount));
          put(
              "merge",
              size,
              input,
              "copying (limit)",
              0,
              side(() -> path.orCount() & 0),
              side(path::limitCopy));
          if (input.density() == 0) {
            put(
                "merge",
                size,
                input,
                "reading (limit)",
                0,
                side(() -> path.orCount() & 0),
                side(path::limitRead));
          }
          Side clear = side(path::refill, path::orCountClear);
          put(
              "merge and clear",
              size,
              input,
              "C, same algorithm",
              same,
              clear,
              side(path::refill, path::sameOrCountClear));
          put(
              "merge and clear",
              size,
              input,
              "C, plain loop",
              0,
              clear,
              side(path::refill, path::plainOrCountClear));
          put(
              "merge and clear",
              size,
              input,
              "BitSet",
              judged ? 1.8 : 0,
              clear,
              side(path::refill, path::bitSet));
          put(
              "merge and clear",
              size,
              input,
              "RoaringBitmap",
              judged ? 2 : 0,
              clear,
              side(path::refill, path::roaring));
          put(
              "merge and clear",
              size,
              input,
              "RoaringBitmap, converted",
              0,
              clear,
              side(path::refill, path::roaringConverted));
        }
      }
    }
  }

  private void shiftedMerge() {
    BitmapInput input = new BitmapInput(0.01, false);
    try (MergePath path = new MergePath(512 * KIB, input)) {
      for (int shift = 1; shift < 64; shift += quick ? 31 : 1) {
        int by = shift;
        put(
            "merge, shifted by " + by,
            "512 KiB",
            input,
            "aligned",
            0.7,
            side(() -> path.orCountShifted(by) & 0),
            side(() -> path.orCount() & 0));
        if (by == 1 || by == 32) {
          put(
              "merge, shifted by " + by,
              "512 KiB",
              input,
              "C, same algorithm",
              0,
              side(() -> path.orCountShifted(by)),
              side(() -> path.sameOrCountShifted(by)));
        }
      }
    }
  }

  private void harvest() {
    long[] sizes = quick ? new long[] {512 * KIB} : new long[] {512 * KIB, 32 * MIB};
    double[] scattered =
        quick ? new double[] {0.01} : new double[] {0, 0.0001, 0.001, 0.01, 0.1, 0.5, 1};
    double[] clustered = quick ? new double[] {0.01} : new double[] {0.0001, 0.001, 0.01, 0.1, 0.5};
    for (long bytes : sizes) {
      for (BitmapInput input : inputs(scattered, clustered)) {
        try (HarvestPath path = new HarvestPath(bytes, input)) {
          Side harvest = side(path::refill, () -> path.tidemark() & 0);
          put(
              "harvest and commit",
              size(bytes),
              input,
              "C, same algorithm",
              AS_FAST,
              harvest,
              side(path::refill, () -> path.same() & 0));
          put(
              "harvest and commit",
              size(bytes),
              input,
              "C, bit by bit",
              bitByBitTarget(input),
              harvest,
              side(path::refill, () -> path.bitByBit() & 0));
          put(
              "harvest and commit",
              size(bytes),
              input,
              "BitSet",
              0,
              harvest,
              side(path::refill, () -> path.bitSet() & 0));
          put(
              "harvest and commit",
              size(bytes),
              input,
              "reading (limit)",
              0,
              harvest,
              side(path::refill, path::limitRead));
        }
      }
    }
  }

  private static double bitByBitTarget(BitmapInput input) {
    double density = input.density();
    if (density == 1) {
      return 50;
    }
    if (input.clustered()) {
      return density >= 0.01 ? 4 : density >= 0.001 ? 2 : 0;
    }
    return density >= 0.5 ? 2 : density >= 0.1 ? 1.5 : density >= 0.001 ? 1 : 0;
  }

  private void sync() {
    long[] sizes = quick ? new long[] {16 * GIB} : new long[] {16 * GIB, 256 * GIB, TIB, 4 * TIB};
    double[] scattered =
        quick ? new double[] {0.0001, 0.01} : new double[] {0, 0.0001, 0.001, 0.01, 0.1, 0.5, 1};
    double[] clustered = quick ? new double[0] : new double[] {0.001, 0.01, 0.1};
    for (long ram : sizes) {
      boolean judged = ram == 16 * GIB || ram == TIB;
      boolean few = ram == 256 * GIB || ram == 4 * TIB;
      for (BitmapInput input :
          few ? inputs(new double[] {0.0001, 0.01}, new double[0]) : inputs(scattered, clustered)) {
        try (SyncPath path = new SyncPath(ram, input)) {
          put(
              "sync, harvest, commit",
              size(ram),
              input,
              "QEMU's algorithm in C",
              judged ? syncTarget(input) : 0,
              side(path::tidemark),
              side(path::qemu));
          put(
              "sync, harvest, commit",
              size(ram),
              input,
              "BitSet",
              0,
              side(path::tidemark),
              side(path::bitSet));
          put(
              "sync, harvest, commit",
              size(ram),
              input,
              "copy, 2 x read (limit)",
              0,
              side(() -> path.tidemark() & 0),
              side(path::limit));
        }
      }
    }
  }

  private static double syncTarget(BitmapInput input) {
    double density = input.density();
    if (density == 1) {
      return 10;
    }
    if (input.clustered() || density <= 0.0001) {
      return 4;
    }
    return density >= 0.5 ? 2.5 : 1.5;
  }

  private void cardinality() {
    BitmapInput input = new BitmapInput(0.01, false);
    for (long bytes : new long[] {512 * KIB, 32 * MIB}) {
      try (MergePath path = new MergePath(bytes, input)) {
        put(
            "cardinality",
            size(bytes),
            input,
            "C, same algorithm",
            0,
            side(path::cardinality),
            side(path::sameCardinality));
        put(
            "cardinality",
            size(bytes),
            input,
            "reading (limit)",
            0,
            side(() -> path.cardinality() & 0),
            side(path::limitRead));
      }
    }
  }

  private void ioctl() {
    try (IoctlPath path = new IoctlPath()) {
      put(
          Contest.of(
                  "ioctl",
                  "one call",
                  path.device(),
                  "C",
                  1 / 1.15,
                  new Side(null, path::tidemark, IoctlPath.CALLS),
                  new Side(null, path::rival, IoctlPath.CALLS))
              .unsteady());
    }
  }

  private void dmaMap() {
    int[] sizes = quick ? new int[] {100_000} : new int[] {1000, 10_000, 100_000, 1_000_000};
    for (int mappings : sizes) {
      String size = String.format(Locale.ROOT, "%,d mappings", mappings);
      try (DmaMapPath path = new DmaMapPath(mappings)) {
        Side changes = new Side(path::draw, path::tidemark, DmaMapPath.CHANGES * 2);
        put(
            Contest.of(
                "DMA map: map, unmap",
                size,
                "single pages",
                "TreeMap",
                1 / 3.0,
                changes,
                new Side(path::draw, path::treeMap, DmaMapPath.CHANGES * 2)));
        put(Contest.limit("DMA map: map, unmap", size, "single pages", "1 µs", 1000, changes));
        put(
            Contest.limit(
                "DMA map: all runs", size, "a hole in 100", "50 ms", 50e6, side(path::runs)));
        // Bytes in the place of nanoseconds.
        double bytes = path.bytesPerMapping();
        results.accept(
            new Outcome(
                "DMA map: bytes a mapping",
                size,
                "single pages",
                bytes,
                "100 bytes",
                100,
                100 / bytes,
                100 / bytes,
                100 / bytes,
                1,
                0,
                true));
      }
    }
  }

  private void scatter() {
    for (long piece : new long[] {512, 8192}) {
      for (double density : quick ? new double[] {0.01} : new double[] {0.0001, 0.01, 0.5}) {
        BitmapInput input = new BitmapInput(density, false);
        String size = "512 KiB by " + piece;
        try (ScatterPath path = new ScatterPath(512 * KIB, piece, input)) {
          Side scatter = side(path::refill, path::tidemark);
          put("scattering merge", size, input, "C", 0, scatter, side(path::refill, path::rival));
          put(
              "scattering merge",
              size,
              input,
              "C, bit by bit",
              0,
              scatter,
              side(path::refill, path::bitByBit));
        }
      }
    }
  }

  private void marks() {
    for (int threads = 1; threads <= 2; threads++) {
      String size = threads == 1 ? "1 thread" : threads + " threads";
      try (MarksPath path = new MarksPath(threads)) {
        Side mark = new Side(null, path::tidemark, MarksPath.MARKS);
        Side array = new Side(null, path::atomicLongArray, MarksPath.MARKS);
        Side inC = new Side(null, path::rival, MarksPath.MARKS);
        put("mark a page", size, "by chance", "AtomicLongArray", 0, mark, array);
        put("mark a page", size, "by chance", "C, atomic OR", 0, mark, inC);
      }
    }
  }

  private void pagemap() {
    if (Userfaultfd.probe()
        .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
        .or(Pagemap::missing)
        .isPresent()) {
      return;
    }
    for (int every : quick ? new int[] {1000} : new int[] {10, 1000}) {
      try (PagemapPath path = new PagemapPath(every)) {
        put(
            Contest.of(
                    "PAGEMAP_SCAN to plane",
                    size(PagemapPath.BYTES),
                    "1 page in " + every,
                    "C, bit by bit",
                    0,
                    side(path::write, path::tidemark),
                    side(path::write, path::rival))
                .unsteady());
      }
    }
  }

  private void kvmLog() {
    if (Kvm.missing().isPresent()) {
      return;
    }
    for (long bytes : quick ? new long[] {16 * GIB} : new long[] {GIB, 16 * GIB}) {
      try (KvmLogPath path = new KvmLogPath(bytes)) {
        put(
            Contest.of(
                    "KVM log to plane",
                    size(bytes),
                    "idle guest",
                    "BitSet",
                    0,
                    side(path::tidemark),
                    side(path::bitSet))
                .unsteady());
      }
    }
  }

  private void firstSync() {
    put(
        measure.once(
            Contest.of(
                    "first sync of a process",
                    "16 GiB",
                    "1 % scattered",
                    "scalar twin, right away",
                    0,
                    new Side(null, () -> FirstSync.inAnotherProcess("proven")[0], 1),
                    new Side(null, () -> FirstSync.inAnotherProcess("cold")[0], 1))
                .unsteady(),
            true));
    long[] until = FirstSync.inAnotherProcess("until");
    put(
        measure.once(
            Contest.of(
                    "sync, vectors proven",
                    "1 TiB",
                    "1 % scattered",
                    "scalar twin, the first",
                    0,
                    new Side(null, () -> until[2], 1),
                    new Side(null, () -> until[0], 1))
                .unsteady(),
            true));
    put(
        measure.once(
            Contest.of(
                    "process start to vectors",
                    "1 TiB",
                    "1 % scattered",
                    "ten seconds",
                    1,
                    new Side(null, () -> until[1], 1),
                    new Side(null, () -> TEN_SECONDS, 1))
                .unsteady(),
            true));
  }

  /** What the gate chooses for vectors of each width, and the scalar twin. */
  private void widths() {
    widths("NEON's width", "-XX:MaxVectorSize=16", "128 bit");
    widths("AVX2", "-XX:UseAVX=2", "256 bit");
    widths("AVX-512", "-XX:UseAVX=3", "512 bit");
  }

  private void widths(String name, String option, String width) {
    try (OtherWidth chosen = new OtherWidth(option, "auto");
        OtherWidth scalar = new OtherWidth(option, "forbid")) {
      if (!chosen.description().contains(width)) {
        // This machine has none so wide.
        return;
      }
      OtherWidth.OPERATIONS.forEach(
          (operation, size) ->
              put(
                  measure.once(
                      Contest.of(
                              operation,
                              size,
                              "1 % scattered",
                              "scalar, " + name,
                              AS_FAST,
                              side(() -> chosen.nanos(operation)),
                              side(() -> scalar.nanos(operation)))
                          .unsteady(),
                      true)));
    }
  }

  private void transfer() {
    try (TransferPath path = new TransferPath()) {
      Side stream = side(path::tidemark);
      put(
          measure.once(
              Contest.of(
                      "stream, two processes",
                      "1.5 of 2 GiB",
                      "random",
                      "plain copying (limit)",
                      0.6,
                      stream,
                      side(path::plainCopy))
                  .unsteady(),
              false));
      if (QemuPair.missing().isEmpty()) {
        try (QemuPair pair = new QemuPair()) {
          put(
              measure.once(
                  Contest.of(
                          "stream, two processes",
                          "1.5 of 2 GiB",
                          "random",
                          "QEMU to QEMU",
                          4,
                          side(() -> path.tidemark() & 0),
                          side(pair::prepare, pair::migrate))
                      .unsteady(),
                  false));
        }
      }
    }
  }

  private void put(Outcome outcome) {
    results.accept(outcome);
  }

  private void put(
      String path, String size, Object input, String rival, double target, Side mine, Side other) {
    put(Contest.of(path, size, input.toString(), rival, target, mine, other));
  }

  private void put(Contest contest) {
    results.accept(measure.measure(contest));
  }
}
