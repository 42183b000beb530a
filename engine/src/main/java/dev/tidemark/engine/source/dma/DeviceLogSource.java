package dev.tidemark.engine.source.dma;

import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.plan.DeviceRanges;
import dev.tidemark.engine.source.plan.DeviceRanges.Range;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Unwind;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.vfio.DmaRange;
import dev.tidemark.ffm.vfio.VfioContainer;
import dev.tidemark.ffm.vfio.VfioDevice;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/**
 * What the devices of one address space logged of their own writes ({@code
 * VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT}).
 *
 * <p>The devices OR their reports into the log's fill plane themselves wherever memory that they
 * may write has the same distance from its IOVA to its place in one block: holes and read-only
 * mappings between do no harm, as a device logs no writes there. What is left, short pieces and
 * pages of a device's log that several pieces share, goes through a scratch plane and is merged by
 * mapping. No call crosses the end of a range that the logs were started with, and each begins and
 * ends where a page of the devices' logs does.
 *
 * <p>All devices are started with the same ranges, wider than what is mapped. A mapping outside of
 * them, made while tracking is on, has the logs read, stopped and started anew, and everything that
 * the devices may write counts as dirty. If a device does not start, all writable memory counts as
 * dirty until it is removed; if one does not report, once, and its log is started anew.
 *
 * <p>Cost of a sync: a call per device and piece of at least 512 pages, and a call for as much of
 * the rest as lies together; one pass over the bits of that. No allocation, unless the scratch
 * plane grows.
 */
public final class DeviceLogSource extends DmaSource {
  /** For devices whose reports wait for writes whose mark is still on its way. */
  public static final Runnable REPORT_WAITS = () -> {};

  /** What could be reported directly gets a call of its own if it is at least so long, in pages. */
  private static final long DIRECT_PAGES = 512;

  /** A call costs more than a pass over the bits of so many pages that nothing is known of. */
  private static final long JOINED_PAGES = 1 << 15;

  private static final int MOST_RANGES = 3;
  private static final long LARGEST_PAGE = 1L << 30;

  private record Expected(long iova, long bytes, boolean deviceMemory) {}

  /** Logs that were started: with which ranges, and how many pages share a bit in any of them. */
  private record Started(List<Range> ranges, long trackedPages) {}

  private final DmaSpace space;
  private final Runnable settle;

  /** A report whose place in its plane is a multiple of this, in pages, can go there directly. */
  private final long alignment;

  private final DmaCursor cursor = new DmaCursor();
  private final List<Expected> expected = new ArrayList<>();
  private VfioDevice[] devices = {};

  private boolean tracking;
  private List<Range> ranges = List.of();
  private long[] rangeFirst = {};
  private long[] rangeEnd = {};
  private long trackedPages = 1;
  private String refusal;
  private long replans;
  private Throwable failure;

  // Which devices are asked.
  private int from;
  private int to;

  // Mappings with the same distance from IOVA to block page, which follow each other.
  private RamBlockLog groupLog;
  private long groupShift;
  private long groupFirst;
  private long groupEnd;

  // What is to be asked for through the scratch plane.
  private long scatteredFirst;
  private long scatteredEnd;

  /**
   * A source for devices in an IOMMUFD address space.
   *
   * @param ioas the address space, borrowed; nothing mapped that is not in the ledger
   * @param map its ledger, of this source alone
   * @param settle called after each unmap and before the log is read once more: returns when the
   *     marks of all writes that are over are in the devices' logs, such as {@link #REPORT_WAITS},
   *     or what stops the devices and lets them go on. Null if nothing can: then all that is
   *     unmapped counts as dirty
   */
  public DeviceLogSource(Ioas ioas, DmaMap map, Runnable settle) {
    this(DmaSpace.of(ioas), map, settle);
  }

  /** As said, in a type1 container. */
  public DeviceLogSource(VfioContainer container, DmaMap map, Runnable settle) {
    this(DmaSpace.of(container), map, settle);
  }

  /** As said, with something between it and the kernel. */
  DeviceLogSource(DmaSpace space, DmaMap map, Runnable settle) {
    this(space, map, settle, DirectAnswers.ALIGNMENT);
  }

  /** As said, on a kernel that needs answers to begin at a multiple of so many pages. */
  DeviceLogSource(DmaSpace space, DmaMap map, Runnable settle, long alignment) {
    super(map, settle == null ? UnmapPolicy.STRICT : UnmapPolicy.QUERY);
    this.space = space;
    this.settle = settle;
    this.alignment = alignment;
  }

  @Override
  public String name() {
    return "device-log";
  }

  /**
   * Says that something may be mapped there later, so that the logs are started with it: memory
   * that is plugged in. Counts from the next start of the logs on.
   *
   * @param deviceMemory whether it is the memory of another device, which gets a range of its own
   */
  public void expect(long iova, long bytes, boolean deviceMemory) {
    map.lock();
    try {
      DmaMap.pageOf(iova, bytes);
      expected.add(new Expected(iova, bytes, deviceMemory));
    } finally {
      map.unlock();
    }
  }

  /**
   * Says that a vIOMMU lets the guest map what it likes, so that the logs are started with all that
   * it may. Counts from the next start of the logs on. Devices whose logs cannot take that much do
   * not start, and all counts as dirty: {@link #refusal()} says why.
   *
   * @param addressBits of an IOVA, as in {@link DeviceRanges#addVIommu}
   */
  public void expectVIommu(int addressBits) {
    expect(0, DeviceRanges.bytesBehindVIommu(addressBits), false);
  }

  /**
   * Adds a device, borrowed. While tracking is on all logs are started anew at once, and everything
   * that devices may write counts as dirty.
   */
  public void add(VfioDevice device) {
    map.lock();
    try {
      devices = Arrays.copyOf(devices, devices.length + 1);
      devices[devices.length - 1] = device;
      if (started) {
        restart();
      }
    } finally {
      map.unlock();
    }
  }

  /**
   * Takes a device out, once it cannot write any more and before it is closed: its last report
   * reaches the log. If it was the one that could not log, tracking is turned on again.
   *
   * @throws IllegalArgumentException if it is not here
   */
  public void remove(VfioDevice device) {
    map.lock();
    try {
      int at = Arrays.asList(devices).indexOf(device);
      if (at < 0) {
        throw new IllegalArgumentException(device + " was not added");
      }
      Error error = null;
      if (tracking) {
        report(at, at + 1);
        Throwable failed = ranges.isEmpty() ? failure : stop(device, failure);
        failure = null;
        if (failed != null) {
          map.markWritable();
        }
        error = failed instanceof Error thrown ? thrown : null;
      }
      VfioDevice[] rest = new VfioDevice[devices.length - 1];
      System.arraycopy(devices, 0, rest, 0, at);
      System.arraycopy(devices, at + 1, rest, at, rest.length - at);
      devices = rest;
      if (started && !tracking) {
        restart();
      }
      Unwind.rethrow(error);
    } finally {
      map.unlock();
    }
  }

  /** Why everything counts as dirty: which device does not log and what it said. */
  public Optional<String> refusal() {
    map.lock();
    try {
      return Optional.ofNullable(refusal);
    } finally {
      map.unlock();
    }
  }

  /** What the logs were last started with. */
  public List<Range> ranges() {
    map.lock();
    try {
      return ranges;
    } finally {
      map.unlock();
    }
  }

  /** How often a mapping outside of the ranges had the logs started anew. */
  public long replans() {
    map.lock();
    try {
      return replans;
    } finally {
      map.unlock();
    }
  }

  /**
   * Why a device cannot log a plan: tries it, so the device must not be logging yet.
   *
   * @return what it said last; empty if it can
   */
  public static Optional<String> refusal(VfioDevice device, DeviceRanges plan) {
    VfioDevice[] one = {device};
    try {
      begin(one, plan);
    } catch (RuntimeException e) {
      return Optional.of(e.getMessage());
    }
    device.dmaLoggingStop();
    return Optional.empty();
  }

  /** Starts all logs, or none. As wide as the devices take it, and in as many ranges. */
  private static Started begin(VfioDevice[] devices, DeviceRanges plan) {
    long page = Pages.SIZE;
    RuntimeException refused = null;
    Set<List<Range>> tried = new LinkedHashSet<>();
    for (DeviceRanges wanted : List.of(plan.widened(), plan)) {
      for (int most = MOST_RANGES; most > 0; most--) {
        List<Range> ranges = wanted.ranges(most, page);
        if (!tried.add(ranges)) {
          continue;
        }
        try {
          long answer = begin(devices, ranges);
          boolean aligned = true;
          for (Range range : ranges) {
            aligned &= ((range.iova() | range.bytes()) & answer - 1) == 0;
          }
          if (aligned) {
            return new Started(ranges, answer >>> Pages.SHIFT);
          }
          // A report could not begin where a range does: once more, with as many larger ones.
          stopAll(devices, devices.length, null);
          page = answer;
          most++;
        } catch (RuntimeException e) {
          refused = e;
        }
      }
    }
    throw refused;
  }

  private static long begin(VfioDevice[] devices, List<Range> ranges) {
    List<DmaRange> wanted =
        ranges.stream().map(range -> new DmaRange(range.iova(), range.bytes())).toList();
    long largest = Pages.SIZE;
    int begun = 0;
    try {
      for (VfioDevice device : devices) {
        long answer = device.dmaLoggingStart(Pages.SIZE, wanted);
        begun++;
        if (answer > LARGEST_PAGE || answer < 1 || Long.bitCount(answer) != 1) {
          throw new IllegalStateException(
              device + " would log in pages of " + answer + " bytes: no power of two up to 1 GiB");
        }
        largest = Math.max(largest, answer);
      }
    } catch (Throwable e) {
      stopAll(devices, begun, e);
      throw e;
    }
    return largest;
  }

  /** Stops the first of them, also if one fails; returns the first failure. */
  private static Throwable stopAll(VfioDevice[] devices, int begun, Throwable failure) {
    for (int i = 0; i < begun; i++) {
      failure = stop(devices[i], failure);
    }
    return failure;
  }

  private static Throwable stop(VfioDevice device, Throwable failure) {
    return Unwind.attempt(failure, device::dmaLoggingStop);
  }

  private DeviceRanges plan() {
    DeviceRanges plan = new DeviceRanges();
    cursor.reset(map);
    while (cursor.next()) {
      plan.add(cursor.iova(), cursor.bytes(), cursor.isWritable(), false);
    }
    for (Expected later : expected) {
      plan.add(later.iova, later.bytes, true, later.deviceMemory);
    }
    return plan;
  }

  private void enable() {
    DeviceRanges plan = plan();
    ranges = List.of();
    trackedPages = 1;
    refusal = null;
    tracking = false;
    try {
      if (devices.length > 0 && !plan.ranges(1).isEmpty()) {
        Started begun = begin(devices, plan);
        ranges = begun.ranges;
        trackedPages = begun.trackedPages;
      }
      tracking = true;
    } catch (RuntimeException e) {
      refusal = e.getMessage();
    }
    rangeFirst = ranges.stream().mapToLong(range -> range.iova() >>> Pages.SHIFT).toArray();
    rangeEnd = ranges.stream().mapToLong(range -> (range.last() >>> Pages.SHIFT) + 1).toArray();
  }

  /** Whatever state the logs are in. */
  private void restart() {
    if (!ranges.isEmpty()) {
      stopAll(devices, devices.length, null);
    }
    try {
      enable();
    } finally {
      map.markWritable();
    }
  }

  /** Does not fail if a device cannot log: then everything counts as dirty. */
  @Override
  public void start() {
    map.lock();
    try {
      enable();
      started = true;
    } finally {
      map.unlock();
    }
  }

  @Override
  public void stop() {
    map.lock();
    try {
      started = false;
      if (tracking) {
        tracking = false;
        Unwind.rethrow(ranges.isEmpty() ? null : stopAll(devices, devices.length, null));
      }
    } finally {
      map.unlock();
    }
  }

  @Override
  void ask() {
    if (!tracking) {
      return;
    }
    report(0, devices.length);
    if (failure != null) {
      Throwable failed = failure;
      failure = null;
      restart();
      Unwind.rethrow(failed);
    }
  }

  /** Takes what some devices report; leaves the first failure in {@link #failure}. */
  private void report(int from, int to) {
    this.from = from;
    this.to = to;
    failure = null;
    for (int i = 0; i < rangeFirst.length; i++) {
      reportRange(rangeFirst[i], rangeEnd[i]);
    }
  }

  private void reportRange(long first, long end) {
    groupLog = null;
    scatteredEnd = scatteredFirst = first;
    cursor.resetPages(map, first, end);
    while (cursor.next()) {
      if (!cursor.isWritable()) {
        continue;
      }
      long shift = cursor.page() - cursor.iovaPage();
      if (groupLog != cursor.log() || groupShift != shift) {
        reportGroup();
        groupLog = cursor.log();
        groupShift = shift;
        groupFirst = Math.max(cursor.iovaPage(), first);
      }
      groupEnd = Math.min(cursor.iovaPage() + cursor.pages(), end);
    }
    reportGroup();
    reportScattered();
  }

  private void reportGroup() {
    if (groupLog == null) {
      return;
    }
    long tracked = trackedPages;
    long wholeFirst = groupFirst & -tracked;
    long wholeEnd = groupEnd + tracked - 1 & -tracked;
    // From the first of the log's pages that is all here and begins where a report may.
    long first = groupFirst + tracked - 1 & -tracked;
    for (int i = 0; i < alignment && (first + groupShift & alignment - 1) != 0; i++) {
      first += tracked;
    }
    // To where a page too many would still be in the plane's slack.
    long room = groupLog.block().pages() + (FillPlane.SLACK_BYTES << 3) - tracked - groupShift;
    long end = Math.min(groupEnd, room) & -tracked;
    if ((first + groupShift & alignment - 1) == 0 && end - first >= DIRECT_PAGES) {
      if (wholeFirst < first) {
        scatter(wholeFirst, first);
      }
      reportScattered();
      try (FillPlane fill = groupLog.fill()) {
        report(first, end - first, fill.segment(), first + groupShift >>> 3, fill);
      }
      if (end < wholeEnd) {
        scatter(end, wholeEnd);
      }
    } else {
      scatter(wholeFirst, wholeEnd);
    }
  }

  private void scatter(long first, long end) {
    if (scatteredFirst < scatteredEnd && first - scatteredEnd > JOINED_PAGES) {
      reportScattered();
    }
    if (scatteredFirst == scatteredEnd) {
      scatteredFirst = first;
    }
    scatteredEnd = end;
  }

  private void reportScattered() {
    long first = scatteredFirst;
    long pages = scatteredEnd - first;
    if (pages == 0) {
      return;
    }
    scatteredFirst = scatteredEnd;
    long behind = DmaScratch.words(pages) << 6;
    long bit = scratch.reserve(behind + trackedPages);
    report(first, pages, scratch.segment(), bit >>> 3, null);
    scratch.clear(bit + behind, trackedPages);
    // What came before a failure too.
    scratch.merge(map, first, pages, bit);
  }

  private void report(
      long iovaPage, long pages, MemorySegment bitmap, long offset, FillPlane fill) {
    for (int i = from; i < to; i++) {
      try {
        devices[i].dmaLoggingReport(
            iovaPage << Pages.SHIFT, pages << Pages.SHIFT, Pages.SIZE, bitmap, offset);
      } catch (Throwable e) {
        failure = Unwind.join(failure, e);
      }
    }
    if (fill != null) {
      fill.countQueries(to - from);
    } else {
      // To the account of whoever's mapping came last.
      try (FillPlane last = groupLog.fill()) {
        last.countQueries(to - from);
      }
    }
  }

  private boolean covers(long iova, long bytes) {
    long at = iova >>> Pages.SHIFT;
    long end = at + (bytes >>> Pages.SHIFT);
    for (int i = 0; i < rangeFirst.length; i++) {
      if (rangeFirst[i] <= at && at < rangeEnd[i]) {
        at = rangeEnd[i];
      }
    }
    return at >= end;
  }

  @Override
  void mapInKernel(long iova, long address, long bytes, boolean writable) {
    // Before a device can write there.
    if (tracking && writable && devices.length > 0 && !covers(iova, bytes)) {
      replans++;
      report(0, devices.length);
      failure = null;
      restart();
    }
    space.map(iova, address, bytes, writable);
  }

  @Override
  long unmapInKernel(long iova, long bytes) {
    return space.unmap(iova, bytes);
  }

  @Override
  boolean isAlwaysDirty() {
    return !tracking;
  }

  @Override
  long mostPages() {
    return Long.MAX_VALUE;
  }

  @Override
  long trackedPages() {
    return trackedPages;
  }

  @Override
  AskAt askAt() {
    return AskAt.AFTER_UNMAP;
  }

  @Override
  void queryForUnmap(long iova, long bytes, long bit) {
    if (settle != null) {
      settle.run();
    }
    long first = iova >>> Pages.SHIFT;
    long pages = bytes >>> Pages.SHIFT;
    try {
      for (int i = 0; i < rangeFirst.length; i++) {
        long at = Math.max(first, rangeFirst[i]);
        long end = Math.min(first + pages, rangeEnd[i]);
        if (at >= end) {
          continue;
        }
        long to = bit + (at - first);
        if ((to & alignment - 1) == 0) {
          reportForUnmap(at, end - at, unmapScratch.segment(), to >>> 3);
        } else {
          // A range that begins where no answer may.
          reportShifted(at, end - at, to);
        }
      }
    } finally {
      unmapScratch.clear(bit + (DmaScratch.words(pages) << 6), trackedPages);
    }
  }

  private void reportForUnmap(long iovaPage, long pages, MemorySegment bitmap, long offset) {
    for (VfioDevice device : devices) {
      device.dmaLoggingReport(
          iovaPage << Pages.SHIFT, pages << Pages.SHIFT, Pages.SIZE, bitmap, offset);
    }
  }

  private void reportShifted(long iovaPage, long pages, long to) {
    long behind = DmaScratch.words(pages) << 6;
    long bit = scratch.reserve(behind + trackedPages);
    try {
      reportForUnmap(iovaPage, pages, scratch.segment(), bit >>> 3);
      unmapScratch.or(to, scratch, bit, pages);
    } finally {
      scratch.clear(bit, behind + trackedPages);
    }
  }

  @Override
  long unmapAndQuery(long iova, long bytes) {
    throw new UnsupportedOperationException("devices are asked after the unmap");
  }
}
