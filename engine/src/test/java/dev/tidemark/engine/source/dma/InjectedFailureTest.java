package dev.tidemark.engine.source.dma;

import static dev.tidemark.engine.source.dma.LabDma.PAGE;
import static dev.tidemark.engine.source.dma.LabDma.pagesOf;
import static dev.tidemark.engine.source.dma.LabDma.set;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.FailNth;
import dev.tidemark.ffm.vfio.VfioContainer;
import dev.tidemark.ffm.vfio.VfioGroup;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.util.BitSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.function.Supplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Each step that the kernel can fail in each call that a source makes, failed once: no page that
 * was written is missing from the next epoch, and the sync after that is exact again.
 */
@Tag("lab-mock")
class InjectedFailureTest {
  private static final int PAGES = 1024;
  private static final int NEVER = 1000;
  private static final Pattern CALL = Pattern.compile("\\b(?:IOMMU|VFIO)_[A-Z_0-9]+");
  private static final Runnable NOTHING = () -> {};

  /**
   * A guest of one block whose devices write.
   *
   * @param write has devices write some pages; they are those of the block
   * @param refusal what a source says that goes on without tracking
   */
  private record Guest(
      String name,
      DirtyTracker tracker,
      Supplier<BitSet> write,
      Supplier<Optional<String>> refusal) {

    private BitSet harvest() {
      tracker.harvest();
      BitSet pages = pagesOf(tracker.logs().getFirst().epoch());
      tracker.commit();
      return pages;
    }

    private void drain() {
      tracker.sync();
      harvest();
    }

    /** Whatever a failure or the last step of the sweep left off is on again. */
    private void restart() {
      if (refusal.get().isPresent()) {
        tracker.stop();
      }
      if (!tracker.isTracking()) {
        tracker.start();
      }
    }

    /**
     * Fails each step of an action once.
     *
     * @param before brings about the state before it, without failures
     * @param action with failures
     * @param after brings about the state that {@link #write} needs, whether the action failed or
     *     not
     * @return how many failures there were
     */
    int sweep(String what, Runnable before, Runnable action, Runnable after) {
      Map<String, Integer> told = new TreeMap<>();
      int injected = 0;
      // The first time nothing fails: loading the classes must not be what does.
      for (int nth = 0, calm = 0; calm < 2; nth++) {
        assertTrue(nth < NEVER, "no end of steps that can fail");
        before.run();
        restart();
        drain();
        BitSet must = write.get();
        long failures = tracker.failures();
        RuntimeException[] thrown = new RuntimeException[1];
        boolean reached =
            FailNth.run(
                nth == 0 ? NEVER : nth,
                () -> {
                  try {
                    action.run();
                  } catch (RuntimeException e) {
                    thrown[0] = e;
                  }
                });
        String where = "%s: %s, failure %d".formatted(name, what, nth);
        if (reached) {
          injected++;
          Throwable seen = tracker.failures() > failures ? tracker.lastFailure() : thrown[0];
          told.merge(
              seen == null ? refusal.get().map(Guest::call).orElse("nobody") : call("" + seen),
              1,
              Integer::sum);
        } else if (thrown[0] != null) {
          throw new AssertionError(where + ": nothing failed in the kernel", thrown[0]);
        }
        calm = reached || nth == 0 ? 0 : calm + 1;
        // Everything counts as dirty where tracking is off: it is on again before the look.
        if (!tracker.isTracking()) {
          tracker.start();
        }
        tracker.lastSync();
        must.andNot(harvest());
        assertEquals(set(), must, () -> where + " lost pages, after " + thrown[0]);
        after.run();
        restart();
        drain();
        assertEquals(write.get(), exact(), () -> where + ": the next sync, after " + thrown[0]);
        assertEquals(set(), exact(), () -> where + ": the sync after it, after " + thrown[0]);
      }
      System.out.printf(
          "InjectedFailureTest: %s: %s: %d failures injected, told of %s%n",
          name, what, injected, told);
      return injected;
    }

    private BitSet exact() {
      long failures = tracker.failures();
      tracker.sync();
      assertEquals(failures, tracker.failures(), () -> "" + tracker.lastFailure());
      return harvest();
    }

    private static String call(String message) {
      Matcher call = CALL.matcher(message);
      return call.find() ? call.group() : message;
    }
  }

  @ParameterizedTest
  @EnumSource
  void pageTables(UnmapPolicy policy) {
    try (LabDma lab = new LabDma(policy, PAGES)) {
      Hwpt one = lab.hwpt();
      Hwpt two = lab.hwpt();
      lab.source.add(one);
      lab.source.add(two);
      Runnable map =
          () -> {
            lab.map(0, 4, 0, 8, true);
            lab.map(4, 4, 0, 31, true);
          };
      map.run();
      // Straight into the fill plane, where those go through a scratch plane.
      lab.map(20, 4, 0, 64, true);
      Supplier<BitSet> write =
          () -> {
            lab.write(one, 1);
            lab.write(two, 6);
            lab.write(one, 23);
            return set(9, 33, 67);
          };
      Runnable clear =
          () -> {
            if (lab.map.mappings() > 1) {
              lab.unmap(0, 8);
            }
          };
      Runnable mapAgain =
          () -> {
            clear.run();
            map.run();
          };
      Guest guest = new Guest("iommufd, " + policy, lab.tracker, write, Optional::empty);
      int injected = 0;
      injected += guest.sweep("sync", NOTHING, lab.tracker::sync, NOTHING);
      injected += guest.sweep("unmap", NOTHING, () -> lab.unmap(0, 8), mapAgain);
      injected +=
          guest.sweep(
              "unmap all",
              NOTHING,
              lab.source::unmapAll,
              () -> {
                lab.source.unmapAll();
                map.run();
                lab.map(20, 4, 0, 64, true);
              });
      injected +=
          guest.sweep(
              "map and unmap again",
              NOTHING,
              () -> {
                lab.map(100, 4, 0, 100, true);
                lab.unmap(100, 4);
              },
              () -> lab.unmap(100, 4));
      injected +=
          guest.sweep(
              "join",
              NOTHING,
              () -> {
                lab.source.remove(two);
                lab.source.add(two);
              },
              () -> {
                // A page table that did not start counts as a device that nothing tracks.
                for (String name : lab.source.untracked()) {
                  lab.source.removeUntracked(name);
                  lab.source.add(two);
                }
              });
      injected +=
          guest.sweep("leave", NOTHING, () -> lab.source.remove(two), () -> lab.source.add(two));
      Runnable allTracked = () -> lab.source.untracked().forEach(lab.source::removeUntracked);
      injected +=
          guest.sweep("untracked joins", NOTHING, () -> lab.source.addUntracked("x"), allTracked);
      injected +=
          guest.sweep(
              "untracked leaves",
              NOTHING,
              () -> {
                lab.source.addUntracked("x");
                lab.source.removeUntracked("x");
              },
              allTracked);
      injected +=
          guest.sweep(
              "stop and start",
              NOTHING,
              () -> {
                lab.tracker.stop();
                lab.tracker.start();
              },
              NOTHING);
      assertTrue(injected > 0);
    }
  }

  /** With devices whose reports wait for marks, and with some whose reports do not. */
  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void devicesThatLog(boolean waits) {
    try (LogLab lab = new LogLab(2, waits ? DeviceLogSource.REPORT_WAITS : null, PAGES)) {
      lab.map(0, 600, 0, 8, true);
      Runnable map = () -> lab.map(700, 4, 0, 1001, true);
      map.run();
      Supplier<BitSet> write =
          () -> {
            lab.write(0, 1, 702);
            lab.write(1, 599);
            return set(9, 607, 1003);
          };
      Runnable mapAgain =
          () -> {
            lab.unmap(700, 4);
            map.run();
          };
      Guest guest =
          new Guest(
              waits ? "device-log, waits" : "device-log, strict",
              lab.tracker,
              write,
              lab.source::refusal);
      int injected = 0;
      injected += guest.sweep("sync", NOTHING, lab.tracker::sync, NOTHING);
      injected += guest.sweep("unmap", NOTHING, () -> lab.unmap(700, 4), mapAgain);
      injected +=
          guest.sweep(
              "unmap all",
              NOTHING,
              lab.source::unmapAll,
              () -> {
                lab.source.unmapAll();
                lab.map(0, 600, 0, 8, true);
                map.run();
              });
      // Above 4 GiB, outside of what the logs were started with.
      long far = 1L << 40;
      long replans = lab.source.replans();
      Runnable near =
          () -> {
            lab.source.unmap(far, PAGE);
            lab.tracker.stop();
          };
      injected +=
          guest.sweep(
              "re-plan", near, () -> lab.source.map(far, PAGE, lab.log(0), 700, true), near);
      assertTrue(lab.source.replans() > replans);
      DmaDevice second = lab.devices.get(1);
      injected +=
          guest.sweep(
              "leave and join",
              NOTHING,
              () -> {
                lab.source.remove(second.vfio());
                lab.source.add(second.vfio());
              },
              NOTHING);
      injected +=
          guest.sweep(
              "stop and start",
              NOTHING,
              () -> {
                lab.tracker.stop();
                lab.tracker.start();
              },
              NOTHING);
      assertTrue(injected > 0);
      assertEquals(set(), lab.take(0));
    }
  }

  @Test
  void type1() {
    try (VfioContainer container = VfioContainer.open();
        VfioGroup group = VfioGroup.open(DmaDevice.names(DmaDevice.PRE_COPY).group());
        Mapping memory = Mapping.anonymous(PAGES * PAGE)) {
      group.setContainer(container);
      container.setIommu(VfioUapi.VFIO_TYPE1v2_IOMMU);
      try (DmaDevice device = DmaDevice.open(DmaDevice.PRE_COPY, group);
          DirtyTracker tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())))) {
        Type1Source source = new Type1Source(container, new DmaMap());
        tracker.add(source);
        tracker.coverByMarks(tracker.logs().getFirst(), 0, PAGES);
        long first = 1L << 24;
        long second = first + 64 * PAGE;
        Runnable map = () -> source.map(second, 64 * PAGE, tracker.logs().getFirst(), 101, true);
        source.map(first, 64 * PAGE, tracker.logs().getFirst(), 8, true);
        map.run();
        Supplier<BitSet> write =
            () -> {
              device.write(first + PAGE, 1);
              device.write(second + 63 * PAGE, 1);
              return set(9, 164);
            };
        Runnable mapAgain =
            () -> {
              source.unmap(second, 64 * PAGE);
              map.run();
            };
        Guest guest = new Guest("type1", tracker, write, Optional::empty);
        int injected = 0;
        injected += guest.sweep("sync", NOTHING, tracker::sync, NOTHING);
        injected += guest.sweep("unmap", NOTHING, () -> source.unmap(second, 64 * PAGE), mapAgain);
        injected +=
            guest.sweep(
                "unmap all",
                NOTHING,
                source::unmapAll,
                () -> {
                  source.unmapAll();
                  source.map(first, 64 * PAGE, tracker.logs().getFirst(), 8, true);
                  map.run();
                });
        injected +=
            guest.sweep(
                "unmap and map again",
                NOTHING,
                () -> {
                  source.unmap(second, 64 * PAGE);
                  map.run();
                },
                mapAgain);
        injected +=
            guest.sweep(
                "stop and start",
                NOTHING,
                () -> {
                  tracker.stop();
                  tracker.start();
                },
                NOTHING);
        assertTrue(injected > 0);
      }
    }
  }
}
