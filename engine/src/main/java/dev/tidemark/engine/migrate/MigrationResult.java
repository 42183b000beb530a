package dev.tidemark.engine.migrate;

import java.util.List;

/**
 * How a migration ended and what it took. Where there was no memory left to say more, the outcome
 * is right, the reason a fixed text, and the counts are those before the stop or before go.
 *
 * @param outcome where the guest is
 * @param reason why it failed, in one line; empty if it completed
 * @param sources the dirty sources that were asked
 * @param bitmapOperations which bitmap operations ran as vectors at the end, as {@link
 *     dev.tidemark.engine.bitmap.Bitmaps#inUse} has it: {@code scalar} for most guests, whose
 *     bitmaps are too small for vectors to pay
 * @param rounds rounds sent, the last one with the guest stopped included
 * @param ramBytes the guest's memory in bytes
 * @param pagesSent pages sent with their content
 * @param zeroPages pages sent as zero
 * @param bytesSent bytes on the wire
 * @param sourceFailures answers of sources that were replaced by marking all their pages
 * @param expectedDowntimeNanos what was expected when the guest was stopped; -1 if it never was, or
 *     was because of a limit
 * @param stoppedNanos {@code System.nanoTime()} at which the guest was stopped; 0 if it never was
 * @param firstPageNanos from the call of {@link OutgoingMigration#run} until the first page of RAM
 *     was handed to the kernel, a zero page's record included; -1 if none was
 * @param totalNanos the whole migration, from {@code run()} on
 */
public record MigrationResult(
    Outcome outcome,
    String reason,
    List<String> sources,
    String bitmapOperations,
    int rounds,
    long ramBytes,
    long pagesSent,
    long zeroPages,
    long bytesSent,
    long sourceFailures,
    long expectedDowntimeNanos,
    long stoppedNanos,
    long firstPageNanos,
    long totalNanos) {}
