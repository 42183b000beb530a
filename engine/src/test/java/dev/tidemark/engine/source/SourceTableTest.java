package dev.tidemark.engine.source;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.kvm.KvmConstants;
import dev.tidemark.ffm.kvm.KvmVm;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Each cell of the tables of docs/tracking.md, on the kernel that runs. */
class SourceTableTest {
  private static final Path PAGE_OF_TABLES =
      Path.of(System.getProperty("tidemark.root"), "docs/tracking.md");

  /** What is written: a huge page, of all kinds of memory. */
  private static final int FIRST = 512;

  private static final int COUNT = 512;
  private static final long WORD = 0x5eed;

  private static final Path HUGE_PAGES = Path.of("/proc/sys/vm/nr_hugepages");
  private static final int HUGE_PAGES_HERE = 8;

  private static boolean reserved;

  private enum Source {
    PAGEMAP("PagemapScanSource"),
    KVM_SLOT("KvmSlotLogSource"),
    KVM_RING("KvmDirtyRingSource");

    private final String title;

    Source(String title) {
      this.title = title;
    }
  }

  private interface Action {
    void write(TestMemory memory, VcpuWriter vcpu) throws IOException, InterruptedException;
  }

  private enum Write {
    STORE("store through the mapping", (memory, _) -> memory.store(FIRST, COUNT, WORD)),
    CALL("`read(2)` into the mapping", (memory, _) -> memory.readInto(FIRST, COUNT)),
    VCPU("store of a vCPU", (_, vcpu) -> vcpu.write(FIRST, COUNT, WORD)),
    ELSEWHERE(
        "store through another mapping", (memory, _) -> memory.storeElsewhere(FIRST, COUNT, WORD)),
    PWRITE("`pwrite(2)` to the file", (memory, _) -> memory.pwrite(FIRST, COUNT, WORD)),
    DISCARD(
        "`MADV_DONTNEED` of what was stored earlier", (memory, _) -> memory.discard(FIRST, COUNT)),
    STORE_DISCARD(
        "the same, after one more store",
        (memory, _) -> {
          memory.store(FIRST, COUNT, WORD);
          memory.discard(FIRST, COUNT);
        }),
    REMOVE("`MADV_REMOVE`", (memory, _) -> memory.remove(FIRST, COUNT)),
    PUNCH("hole punched into the file", (memory, _) -> memory.punch(FIRST, COUNT)),
    STORE_PUNCH(
        "store, then hole punched",
        (memory, _) -> {
          memory.store(FIRST, COUNT, WORD);
          memory.punch(FIRST, COUNT);
        }),
    TRUNCATE("file cut off and lengthened", (memory, _) -> memory.truncate(FIRST));

    private final String title;
    private final Action action;

    Write(String title, Action action) {
      this.title = title;
      this.action = action;
    }
  }

  @BeforeAll
  static void reserveHugePages() throws IOException {
    if (Files.isWritable(HUGE_PAGES)) {
      changeHugePages(HUGE_PAGES_HERE);
      reserved = true;
    }
  }

  @AfterAll
  static void giveHugePagesBack() throws IOException {
    if (reserved) {
      changeHugePages(-HUGE_PAGES_HERE);
    }
  }

  private static void changeHugePages(int by) throws IOException {
    long now = Long.parseLong(Files.readString(HUGE_PAGES).strip());
    Files.writeString(HUGE_PAGES, Long.toString(Math.max(0, now + by)));
  }

  /** The rows of a source's table, without its header. */
  private static List<String[]> table(Source source) throws IOException {
    List<String> lines = Files.readAllLines(PAGE_OF_TABLES);
    int at = lines.indexOf("### " + source.title);
    assertTrue(at >= 0, "no table of " + source.title);
    return lines.stream()
        .skip(at + 1)
        .dropWhile(line -> !line.startsWith("|"))
        .takeWhile(line -> line.startsWith("|"))
        .map(line -> line.substring(1, line.lastIndexOf('|')).split("\\|"))
        .map(cells -> Arrays.stream(cells).map(String::strip).toArray(String[]::new))
        .toList();
  }

  @TestFactory
  Stream<DynamicTest> everyCell() throws IOException {
    List<DynamicTest> tests = new ArrayList<>();
    for (Source source : Source.values()) {
      List<String[]> table = table(source);
      String[] header = table.getFirst();
      for (int k = 0; k < TestMemory.Kind.values().length; k++) {
        assertEquals(TestMemory.Kind.values()[k].title, header[k + 1]);
      }
      assertEquals(TestMemory.Kind.values().length + 1, header.length);
      assertEquals(Write.values().length + 2, table.size(), "a row for each write");
      for (Write write : Write.values()) {
        String[] row = table.get(write.ordinal() + 2);
        assertEquals(write.title, row[0]);
        for (TestMemory.Kind kind : TestMemory.Kind.values()) {
          String says = row[kind.ordinal() + 1];
          tests.add(
              DynamicTest.dynamicTest(
                  source.title + ": " + write.title + ", " + kind.title + ": " + says,
                  () -> assertEquals(says, observe(source, write, kind))));
        }
      }
    }
    return tests.stream();
  }

  private static void assume(Source source, TestMemory.Kind kind) throws IOException {
    String missing = Kvm.missing().orElse(null);
    assumeTrue(missing == null, missing);
    if (source == Source.PAGEMAP) {
      String scan =
          Userfaultfd.probe()
              .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
              .or(Pagemap::missing)
              .orElse(null);
      assumeTrue(scan == null, scan);
    }
    if (source == Source.KVM_RING) {
      try (Kvm kvm = Kvm.open();
          KvmVm vm = kvm.createVm()) {
        assumeTrue(
            vm.checkExtension(KvmConstants.KVM_CAP_DIRTY_LOG_RING_ACQ_REL) > 0,
            "no KVM_CAP_DIRTY_LOG_RING_ACQ_REL");
      }
    }
    if (kind.isHugetlb()) {
      assumeTrue(
          Files.readAllLines(Path.of("/proc/meminfo")).stream()
              .filter(line -> line.startsWith("HugePages_Free:"))
              .anyMatch(line -> Long.parseLong(line.replaceAll("\\D", "")) >= HUGE_PAGES_HERE),
          "fewer than " + HUGE_PAGES_HERE + " free huge pages, and none can be reserved");
    }
  }

  /**
   * Does it, and says what the source made of it.
   *
   * @return seen: every page that changed was reported; mark: none was; none: no page changed; -:
   *     it cannot be done to such memory
   */
  private static String observe(Source source, Write write, TestMemory.Kind kind)
      throws IOException, InterruptedException {
    assume(source, kind);
    try (TestMemory memory = new TestMemory(kind);
        VcpuWriter vcpu = new VcpuWriter(memory.segment, source == Source.KVM_RING);
        DirtyTracker tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment)))) {
      assumeTrue(kind != TestMemory.Kind.THP || memory.isHuge(), "the kernel gave no huge pages");
      RamBlockLog log = tracker.logs().getFirst();
      var slot =
          new KvmSlot(VcpuWriter.SLOT, log, 0, TestMemory.PAGES, VcpuWriter.GUEST_ADDRESS, 0);
      tracker.add(
          switch (source) {
            case PAGEMAP -> new PagemapScanSource(List.of(log));
            case KVM_SLOT -> new KvmSlotLogSource(vcpu.vm, List.of(slot), false);
            case KVM_RING ->
                new KvmDirtyRingSource(vcpu.vm, List.of(vcpu.ring), List.of(slot), () -> {});
          });
      tracker.start();
      take(tracker);
      if (write == Write.DISCARD || write == Write.STORE_DISCARD) {
        // So that a private mapping of a file has pages of its own, which go.
        memory.store(FIRST, COUNT, ~WORD);
      }
      long[] before = content(memory.segment);
      take(tracker);
      assertEquals(
          new BitSet(), take(tracker).get(FIRST, FIRST + COUNT), "before anything is written");
      try {
        if (!kind.hasFile() && NEED_A_FILE.contains(write)) {
          return "-";
        }
        write.action.write(memory, vcpu);
      } catch (IOException | LinuxException e) {
        return "-";
      }
      BitSet reported = take(tracker);
      assertEquals(0, tracker.failures());
      long[] after = content(memory.segment);
      BitSet changed = new BitSet();
      for (int page = 0; page < TestMemory.PAGES; page++) {
        changed.set(
            page,
            before[2 * page] != after[2 * page] || before[2 * page + 1] != after[2 * page + 1]);
      }
      if (changed.isEmpty()) {
        return "none";
      }
      assertTrue(changed.get(FIRST, FIRST + COUNT).cardinality() == COUNT, "" + changed);
      BitSet told = (BitSet) changed.clone();
      told.and(reported);
      return told.equals(changed)
          ? "seen"
          : told.isEmpty()
              ? "mark"
              : "%d of %d".formatted(told.cardinality(), changed.cardinality());
    }
  }

  private static final List<Write> NEED_A_FILE =
      List.of(
          Write.ELSEWHERE,
          Write.PWRITE,
          Write.REMOVE,
          Write.PUNCH,
          Write.STORE_PUNCH,
          Write.TRUNCATE);

  private static BitSet take(DirtyTracker tracker) {
    tracker.sync();
    tracker.harvest();
    BitSet pages = new BitSet();
    RunCursor runs = tracker.logs().getFirst().epoch().runs();
    for (int found = runs.batch(); found > 0; found = runs.batch()) {
      for (int run = 0; run < found; run++) {
        pages.set((int) runs.start(run), (int) (runs.start(run) + runs.length(run)));
      }
    }
    tracker.commit();
    return pages;
  }

  /** Two words of each page. */
  private static long[] content(MemorySegment memory) {
    long[] words = new long[(int) (2 * TestMemory.PAGES)];
    for (int i = 0; i < words.length; i++) {
      words[i] = memory.get(ValueLayout.JAVA_LONG, i / 2 * Pages.SIZE + i % 2 * 8);
    }
    return words;
  }

  /**
   * What tracking takes in page tables: an entry of 8 bytes for each page that was never touched.
   */
  @Test
  void trackingUntouchedMemoryBuildsItsPageTables() throws IOException {
    assume(Source.PAGEMAP, TestMemory.Kind.ANONYMOUS);
    long bytes = 8L << 30;
    try (Mapping memory = Mapping.anonymous(bytes);
        DirtyTracker tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())))) {
      tracker.add(new PagemapScanSource(tracker.logs()));
      long before = pageTableBytes();
      tracker.start();
      long built = pageTableBytes() - before;
      long entries = bytes / Pages.SIZE * 8;
      assertTrue(built > entries * 3 / 4 && built < entries * 5 / 4, built + " bytes of tables");
      tracker.stop();
      assertTrue(pageTableBytes() - before > entries * 3 / 4, "kept");
    }
  }

  private static long pageTableBytes() throws IOException {
    return Files.readAllLines(Path.of("/proc/self/status")).stream()
        .filter(line -> line.startsWith("VmPTE:"))
        .mapToLong(line -> Long.parseLong(line.replaceAll("\\D", "")) << 10)
        .findFirst()
        .orElseThrow();
  }
}
